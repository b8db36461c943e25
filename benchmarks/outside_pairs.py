"""Writes what benchmarks/outside_networks.py compares: photographs, their reconstructions, and swaps of one layer.

Command: python benchmarks/outside_pairs.py photos64 shards/ pairs.npz
pairs.npz holds uint8 (n, H, W, 3): `originals`, the first held-out photographs of the test split; `reconstructions`,
from refined codes; `encoder`, from the encoder's codes; `samples`, from the prior; `layer0` … : the first half of the
reconstructions, each with that layer of the photograph in the second half.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import analysis
from analysis.inputs.encode import load_split
from preprocess.shards.reader import ShardSet

COUNT = 300


def main(model_name: str, shards: str, out: str) -> None:
    """Decodes all of it and writes the file."""
    model = analysis.load(model_name)
    originals, _ = load_split(ShardSet.open(Path(shards)), "test", COUNT)
    codes = model.encode(originals, align="off")
    first, second = ([layer[part] for layer in codes] for part in (slice(0, COUNT // 2), slice(COUNT // 2, None)))
    pictures = {
        "originals": originals,
        "reconstructions": model.decode(codes, output="numpy"),
        "encoder": model.decode(model.encode(originals, align="off", refine=0), output="numpy"),
        "samples": model.sample(COUNT, output="numpy"),
    }
    for layer in range(len(codes)):
        pictures[f"layer{layer}"] = model.swap(first, second, layer, output="numpy")
    np.savez(out, **pictures)


if __name__ == "__main__":
    main(*sys.argv[1:])
