"""All drills, in the order of docs/faults.md."""

import tests.drills.damaged_checkpoints
import tests.drills.damaged_shards
import tests.drills.disk_full
import tests.drills.every_sample_once
import tests.drills.folder_and_clock
import tests.drills.fuzzed
import tests.drills.hostile_input
import tests.drills.long_run
import tests.drills.preprocess_killed
import tests.drills.rank_stopped
import tests.drills.ranks_differ
import tests.drills.ranks_killed
import tests.drills.same_weights
import tests.drills.save_killed
import tests.drills.signals  # noqa: F401
from tests.drills.drill import DRILLS

__all__ = ["DRILLS"]
