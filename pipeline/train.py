"""Entry of ``accelerate launch pipeline/train.py``: swaps the import path and calls the command."""

import sys
from pathlib import Path

# As a script this folder is sys.path[0], where our modules would pass for top-level ones.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pipeline.command import app  # noqa: E402

if __name__ == "__main__":
    app()
