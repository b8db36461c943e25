"""Entry of ``accelerate launch pipeline/train.py``: swaps the import path and calls the command."""

import sys
from pathlib import Path

# As a script this folder is sys.path[0], where our modules would pass for top-level ones.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

if __name__ == "__main__":  # the feed's worker processes import this file too, and need none of it
    from pipeline.distributed.signals import SIGNALS

    SIGNALS.listen()  # before torch, whose import takes seconds in which a scheduler may change its mind

    from pipeline.cli import app

    app()
