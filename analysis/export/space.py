"""An export that runs as a Hugging Face Space: the page of ``analysis explore`` on a free CPU machine."""

from __future__ import annotations

from pathlib import Path

from analysis.report.report import installed_version
from preprocess.shards.atomic import write_file

APP = '''"""The page of `analysis explore` for the model in this folder."""

from pathlib import Path

import analysis
from analysis.explorer.page import build_page
from analysis.explorer.serve import launch

demo = build_page(analysis.load(Path(__file__).parent))

if __name__ == "__main__":
    launch(demo, host="0.0.0.0", port=7860, browser=False)
'''


def write_app(folder: Path) -> None:
    """Adds app.py and requirements.txt to an exported folder, whose card names them."""
    own = installed_version("mmd-vlae")
    write_file(folder / "app.py", APP.encode())
    write_file(folder / "requirements.txt", f"mmd-vlae[explore]{f'=={own}' if own else ''}\n".encode())
