"""The examples of docs/api.md and the notebook run as they are written."""

import json
import re
import shutil

import pytest
from PIL import Image

from pipeline.model import pretrained
from tests.conftest import REPOSITORY


@pytest.fixture
def pretrained_model(export_folder, tmp_path, monkeypatch):
    """The small exported model under the name of the pretrained one, and a photograph in the current folder."""
    shutil.copytree(export_folder, tmp_path / "weights/photos64")
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "weights")
    monkeypatch.setattr(pretrained, "pretrained_names", lambda: ["photos64"])
    monkeypatch.chdir(tmp_path)
    Image.effect_noise((178, 218), 60).convert("RGB").save("photo.jpg")
    return tmp_path


def test_the_examples_of_the_api_page_run(pretrained_model):
    [code] = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/api.md").read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 10
    exec(code.replace("layers=[3]", "layers=[2]"), {})  # the small model has three layers
    written = {path.name for path in pretrained_model.iterdir()}
    assert {"again.png", "swapped.png", "smiling.png", "way.gif"} <= written


def test_the_notebook_runs(pretrained_model):
    notebook = json.loads((REPOSITORY / "docs/api.ipynb").read_text())
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            exec("".join(cell["source"]), names)
    assert (pretrained_model / "way.gif").stat().st_size > 0
