"""The Kubernetes files: fields that exist, names that meet, words that the commands accept."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.docs.known_commands import problem_with
from tests.launch.kubernetes_fields import problems_of_document

FOLDER = REPOSITORY / "launch/kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def find(tree: object, key: str) -> list[Any]:
    """Every value of ``key`` anywhere in a document."""
    if isinstance(tree, list):
        return [value for item in tree for value in find(item, key)]
    if not isinstance(tree, dict):
        return []
    return [value for k, v in tree.items() for value in ([v] if k == key else []) + find(v, key)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_field_is_one_of_the_published_definition(path: Path) -> None:
    assert [line for document in documents(path) for line in problems_of_document(document)] == []
    for name in find(documents(path), "name"):
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name), name


def test_a_wrong_field_would_be_found() -> None:
    (_, job) = documents(FOLDER / "trainjob.yaml")
    assert problems_of_document(job) == []
    for break_it in (
        lambda spec: spec["trainer"].update(numProcPerNode="8"),
        lambda spec: spec["trainer"].update(nprocPerNode=8),
        lambda spec: spec["trainer"]["resourcesPerNode"]["limits"].update({"nvidia.com/gpu": 8}),
        lambda spec: spec.pop("runtimeRef"),
        lambda spec: spec["runtimeRef"].update(kind="Runtime"),
    ):
        broken = copy.deepcopy(job)
        break_it(broken["spec"])
        assert len(problems_of_document(broken)) == 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_volumes_claims_images_and_commands_meet(path: Path) -> None:
    claims = {document["metadata"]["name"] for document in documents(FOLDER / "storage.yaml")}
    version = re.search(r'^version = "(.+)"', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)[1]
    for document in documents(path):
        assert set(find(document, "claimName")) <= claims
        mounted = {mount["name"] for mounts in find(document, "volumeMounts") for mount in mounts}
        assert mounted == {volume["name"] for volumes in find(document, "volumes") for volume in volumes}
        assert set(find(document, "image")) <= {f"mmd-vlae:{version}"}
        for owner in [document["spec"].get("trainer"), *(c for cs in find(document, "containers") for c in cs)]:
            if owner and "command" in owner:
                assert problem_with([*owner["command"], *owner.get("args", [])]) is None


def test_training_resumes_after_a_restart() -> None:
    runtime, job = documents(FOLDER / "trainjob.yaml")
    assert find(runtime, "maxRestarts") == [20] and job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    (old,) = documents(FOLDER / "pytorchjob.yaml")
    for document in (job, old):
        (words,) = find(document, "args")
        assert "--out" in words and "--resume" not in words, "resuming from --out is the default"
        assert words[words.index("--out") + 1].startswith("/runs/"), "checkpoints must outlive the pod"
    policy = old["spec"]["elasticPolicy"]
    assert policy["minReplicas"] == policy["maxReplicas"] == old["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"]
