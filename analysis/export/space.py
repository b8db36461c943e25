"""An export that runs as a Hugging Face Space: the page of ``analysis explore`` on a free CPU machine."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pipeline.model.pretrained_schema import PretrainedConfig
from preprocess.shards.atomic import write_file

GRADIO = "6.0"  # at least
APP = '''"""The page of `analysis explore` for the model in this folder."""

from pathlib import Path

import analysis
from analysis.explorer.page import build_page
from analysis.explorer.serve import launch

demo = build_page(analysis.load(Path(__file__).parent))

if __name__ == "__main__":
    launch(demo, host="0.0.0.0", port=7860, browser=False)
'''


def write_space(folder: Path, config: PretrainedConfig) -> None:
    """Adds app.py and requirements.txt to an exported folder, and the Space's fields to its card's front matter."""
    card = folder / "README.md"
    fields = [
        f"title: {config.name}",
        "sdk: gradio",
        f"sdk_version: {_installed('gradio', GRADIO)}",
        "app_file: app.py",
        "python_version: '3.12'",
    ]
    text = card.read_text(encoding="utf-8").replace("---\n", "---\n" + "\n".join(fields) + "\n", 1)
    write_file(card, text.encode())
    write_file(folder / "app.py", APP.encode())
    own = _installed("mmd-vlae", "")
    requirement = f"mmd-vlae[explore]=={own}" if own else "mmd-vlae[explore]"
    write_file(folder / "requirements.txt", (requirement + "\n").encode())


def _installed(package: str, otherwise: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return otherwise
