"""Recipes and overrides: validated whole, errors that name the key and the nearest known one."""

import re

import pytest
import yaml

from pipeline.config.load import (
    build_config,
    changed_values,
    fields,
    find_recipe,
    parse_overrides,
    recipe_names,
    resolve,
    to_yaml,
)
from pipeline.config.schema import Config, ConfigError
from pipeline.model.blocks import parse_stages
from tests.conftest import REPOSITORY, run_command

RECIPES = sorted((REPOSITORY / "launch/recipes").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid_and_named_after_its_file(recipe):
    config = resolve(recipe, {})
    assert config.name == recipe.stem
    shape = (1, 28, 28) if recipe.stem == "mnist" else (3, 64, 64)
    parse_stages(config.model.layers, shape)


def test_overrides_reach_the_leaf_and_are_typed():
    changes = parse_overrides(["optimizer.learning_rate=1e-3", "model.latents=[2, 3, 4, 5]", "seed=7"])
    config = resolve(REPOSITORY / "launch/recipes/demo.yaml", changes)
    assert (config.optimizer.learning_rate, config.model.latents, config.seed) == (0.001, (2, 3, 4, 5), 7)


def test_no_is_a_precision_with_and_without_quotes():
    for word in ("training.mixed_precision=no", "training.mixed_precision='no'"):
        assert build_config(parse_overrides([word]), "override").training.mixed_precision == "no"


def test_a_mapping_override_changes_only_what_it_names():
    config = build_config(parse_overrides(["objective.kernel={name: rbf}"]), "override")
    assert config.objective.kernel.name == "rbf"
    assert config.objective.kernel.scales[0] == 0.1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("optimiser.learning_rate=1", "did you mean 'optimizer.learning_rate'"),
        ("training.step=1", "did you mean 'training.steps'"),
        ("training.steps=many", "training.steps"),
        ("training.steps=0", "greater than or equal to 1"),
        ("objective.kernel.name=box", "objective.kernel.name"),
        ("model.latents=[1]", "give one per layer"),
        ("model=3", "'model' takes no value, only keys: layers"),
        ("objective.kernel.scales=[]", "at least 1 item"),
        ("objective.kernel.scales=[1, 0]", "greater than 0"),
        ("optimizer.betas=[0.9, 1]", "less than 1"),
        ("optimizer.learning_rate=.inf", "finite number"),
        ("training.validation_samples=1", "greater than or equal to 2"),
        ("training.trackers=wandb", "valid list (given: 'wandb')"),
        ("training.trackers=[ml_flow]", "'trackio' or 'mlflow' (given: 'ml_flow')"),
        ("nonsense", "neither an option"),
        ("seed=[", "not valid YAML"),
    ],
)
def test_a_wrong_override_is_explained(word, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        resolve(REPOSITORY / "launch/recipes/demo.yaml", parse_overrides([word]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("- a", "not a list"),
        ("a: [", "is not valid YAML"),
        ("seed: 1\nseed: 2", "duplicate key 'seed'"),
        ("model: {max_std: 1, max_std: 0.5}", "duplicate key 'max_std'"),
        ("model:", "'model' takes no value"),
        ("1: 2", "the key 1 is not text"),
        ("training.steps: 3", "the key 'training.steps' must be nested"),
        ("a: &x [1]\nb: *x", "aliases"),
    ],
)
def test_a_wrong_recipe_is_explained(text, message, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        resolve(tmp_path / "recipe.yaml", {})


def test_the_resolved_config_reads_back():
    config = resolve(REPOSITORY / "launch/recipes/demo.yaml", {"seed": 5})
    leaves = yaml.safe_load(to_yaml(config))
    assert type(config).model_validate(leaves) == config
    assert "objective.kernel.bandwidth" in [key for key, _ in fields()]


def test_recipes_are_found_by_name_and_by_path(tmp_path, monkeypatch):
    assert set(recipe_names()) == {path.stem for path in RECIPES}
    assert find_recipe("demo") == find_recipe(str(REPOSITORY / "launch/recipes/demo.yaml"))
    with pytest.raises(ConfigError, match="the recipe celeba does not exist; did you mean 'celeba64'"):
        find_recipe("celeba")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    assert find_recipe("demo").suffix == ".yaml", "a folder of the same name does not hide the recipe"


def test_every_field_is_described_and_declares_what_may_change_on_resume():
    assert not [key for key, field in fields() if not field.description]
    changed = build_config(parse_overrides(["data.workers=2", "optimizer.learning_rate=0.1", "seed=3"]), "override")
    assert changed_values(Config(), changed) == {
        "seed": (0, 3, False),
        "data.workers": (0, 2, True),
        "optimizer.learning_rate": (0.001, 0.1, True),
    }


def train_py(*words):
    return run_command("python", "pipeline/train.py", *words)


def test_print_config_and_exit_codes_of_the_command():
    done = train_py("--print-config", "training.steps=3")
    assert done.returncode == 0
    assert yaml.safe_load(done.stdout)["training"]["steps"] == 3
    wrong = train_py("training.stepz=3")
    assert wrong.returncode == 2
    assert "did you mean 'training.steps'" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    absent = train_py("--data", "/nowhere", "--out", "/tmp/never")
    assert absent.returncode == 1
    assert "/nowhere" in absent.stderr and "Traceback" not in absent.stderr


def test_a_model_that_no_memory_holds_is_one_sentence(face_shards, tmp_path):
    words = ["--data", str(face_shards), "--out", str(tmp_path / "run"), "--global-batch-size", "8"]
    done = train_py(*words, "model.latents=[100000000000, 1, 1, 1]", "training.trackers=[]")
    assert done.returncode == 1
    assert "more memory than the device has" in done.stderr and "Traceback" not in done.stderr
