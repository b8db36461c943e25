"""All drills, in the order of docs/faults.md."""

from tests.drills import ranks_killed as _ranks_killed  # noqa: F401, I001 - the order is that of the table
from tests.drills import signals as _signals  # noqa: F401
from tests.drills import save_killed as _save_killed  # noqa: F401
from tests.drills import preprocess_killed as _preprocess_killed  # noqa: F401
from tests.drills import disk_full as _disk_full  # noqa: F401
from tests.drills.drill import DRILLS

__all__ = ["DRILLS"]
