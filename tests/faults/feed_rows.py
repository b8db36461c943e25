"""What the loader gives one rank, in a process of its own: `python feed_rows.py SHARDS OUT CASES`.

CASES is JSON: [[mode, workers, global batch, damaged, epochs], …]. Each rank writes OUT-RANK.json with, for each case,
the rows of each step; the pixels are compared with the shards', read without any feed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from pipeline.config.schema import Config, DataConfig, TrainingConfig
from pipeline.data.loader import choose_mode, open_train_loader
from pipeline.data.shard_checks import usable_shards
from pipeline.data.shard_reader import open_source
from pipeline.distributed.setup import make_accelerator
from pipeline.training.build import make_sampler
from preprocess.shards.reader import ShardSet


def main(shards: Path, out: str, cases: list[tuple[str, int, int, str, int]]) -> None:
    accelerator = make_accelerator(Config(training=TrainingConfig(mixed_precision="no", trackers=())), Path(out).parent)
    rank, ranks = accelerator.process_index, accelerator.num_processes
    found = []
    for mode, workers, batch, damaged, epochs in cases:
        address = f"file://{shards}" if mode == "streamed" else str(shards)
        data = DataConfig.model_validate(
            {"path": address, "mode": mode, "workers": workers, "damaged": damaged, "shuffle_window": 64}
        )
        config = Config(data=data, training=TrainingConfig(global_batch_size=batch), seed=5)
        source, _ = usable_shards(open_source(data.path, False), data, rank, ranks)
        whole = source.local or ShardSet.open(shards)
        pixels = np.concatenate(whole.images("train"))
        plan = make_sampler(config, source, rank, ranks)
        feed = open_train_loader(data, choose_mode(mode, source, accelerator.device), source, accelerator.device, ranks)
        rows = []
        for made in feed.batches(plan, 0, epochs * plan.batches_per_epoch, 3):
            assert (made.images.permute(0, 2, 3, 1).numpy() == pixels[made.indices.numpy()]).all()
            rows.append(made.indices.tolist())
        found.append(rows)
    Path(f"{out}-{rank}.json").write_text(json.dumps({"samples": len(pixels), "rows": found}))
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]))
