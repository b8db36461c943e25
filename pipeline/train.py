"""Entry of ``accelerate launch pipeline/train.py``: swaps the import path and calls the command."""

import sys
from pathlib import Path

# As a script this folder is sys.path[0], where our modules would look like top-level ones.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

if __name__ == "__main__":  # worker processes import this file too, and need none of it
    from pipeline.cli import run

    run()
