"""All drills, in the order of docs/faults.md."""

from tests.drills import ranks_killed as _ranks_killed  # noqa: F401, I001 - the order is that of the table
from tests.drills import signals as _signals  # noqa: F401
from tests.drills import save_killed as _save_killed  # noqa: F401
from tests.drills import preprocess_killed as _preprocess_killed  # noqa: F401
from tests.drills import disk_full as _disk_full  # noqa: F401
from tests.drills import damaged_shards as _damaged_shards  # noqa: F401
from tests.drills import damaged_checkpoints as _damaged_checkpoints  # noqa: F401
from tests.drills import every_sample_once as _every_sample_once  # noqa: F401
from tests.drills import ranks_differ as _ranks_differ  # noqa: F401
from tests.drills import rank_stopped as _rank_stopped  # noqa: F401
from tests.drills import fuzzed as _fuzzed  # noqa: F401
from tests.drills import hostile_input as _hostile_input  # noqa: F401
from tests.drills.drill import DRILLS

__all__ = ["DRILLS"]
