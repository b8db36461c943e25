"""All fault tests, in the order of docs/faults.md."""

import tests.faults.damaged_checkpoints
import tests.faults.damaged_shards
import tests.faults.disk_full
import tests.faults.every_sample_once
import tests.faults.folder_and_clock
import tests.faults.fuzzed
import tests.faults.hostile_input
import tests.faults.long_run
import tests.faults.preprocess_killed
import tests.faults.rank_stopped
import tests.faults.ranks_differ
import tests.faults.ranks_killed
import tests.faults.same_weights
import tests.faults.save_killed
import tests.faults.signals  # noqa: F401
from tests.faults.fault import FAULTS

__all__ = ["FAULTS"]
