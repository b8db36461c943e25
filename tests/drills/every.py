"""All drills, in the order of docs/faults.md."""

from tests.drills.drill import DRILLS

__all__ = ["DRILLS"]
