"""All drills, in the order of docs/faults.md."""

import tests.drills.damaged_checkpoints
import tests.drills.damaged_shards
import tests.drills.every_sample_once
import tests.drills.fuzzed
import tests.drills.hostile_input  # noqa: F401
from tests.drills.drill import DRILLS

__all__ = ["DRILLS"]
