"""The fields of the Kubernetes objects that launch/kubernetes/ uses, as their published definitions name them.

Only fields in use are listed, each group with the file it was read from. A field that is not here fails the test: look
it up in that file before adding it. Written down 2026-11-23 from the repositories' state of 2026.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Fields:
    """An object: its known fields, each a type, a Fields or a list of one; and those it cannot lack."""

    known: dict[str, Any]
    required: set[str] = field(default_factory=set)


class AnyText:
    """A mapping from any name to text (labels, quantities)."""


def problems(value: object, wanted: Any, where: str) -> list[str]:
    """What is wrong with ``value``, one line each; [] when nothing is."""
    if isinstance(wanted, Fields):
        return _problems_of_object(value, wanted, where)
    if isinstance(wanted, list):
        if not isinstance(value, list):
            return [f"{where} must be a list"]
        return [line for i, item in enumerate(value) for line in problems(item, wanted[0], f"{where}[{i}]")]
    if isinstance(wanted, set):
        return [] if value in wanted else [f"{where} must be one of {sorted(wanted)}, is {value!r}"]
    if wanted is AnyText:
        right = isinstance(value, dict) and all(isinstance(entry, str) for pair in value.items() for entry in pair)
        return [] if right else [f"{where} must map text to text (quote numbers)"]
    right = isinstance(value, wanted) and not (wanted is int and isinstance(value, bool))
    return [] if right else [f"{where} must be {wanted.__name__}, is {value!r}"]


def _problems_of_object(value: object, wanted: Fields, where: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{where} must be an object"]
    found = [f"{where}.{key} is not a field of it" for key in value if key not in wanted.known]
    found += [f"{where}.{key} is missing" for key in wanted.required if key not in value]
    for key in value.keys() & wanted.known.keys():
        found += problems(value[key], wanted.known[key], f"{where}.{key}")
    return found


METADATA = Fields({"name": str, "labels": AnyText}, {"name"})
LABELS_ONLY = Fields({"labels": AnyText})

# kubernetes/kubernetes, staging/src/k8s.io/api/core/v1/types.go
RESOURCES = Fields({"requests": AnyText, "limits": AnyText})
CONTAINER = Fields(
    {
        "name": str,
        "image": str,
        "command": [str],
        "args": [str],
        "resources": RESOURCES,
        "securityContext": Fields({"allowPrivilegeEscalation": bool, "capabilities": Fields({"drop": [str]})}),
        "volumeMounts": [Fields({"name": str, "mountPath": str, "readOnly": bool}, {"name", "mountPath"})],
    },
    {"name"},
)
VOLUME = Fields(
    {
        "name": str,
        "persistentVolumeClaim": Fields({"claimName": str, "readOnly": bool}, {"claimName"}),
        "emptyDir": Fields({"medium": {"", "Memory"}, "sizeLimit": str}),
    },
    {"name"},
)
POD = Fields(
    {
        "restartPolicy": {"Always", "OnFailure", "Never"},
        "terminationGracePeriodSeconds": int,
        "securityContext": Fields({"runAsNonRoot": bool, "runAsUser": int, "runAsGroup": int, "fsGroup": int}),
        "containers": [CONTAINER],
        "volumes": [VOLUME],
    },
    {"containers"},
)
CLAIM = Fields({"accessModes": [str], "resources": RESOURCES, "storageClassName": str}, {"accessModes", "resources"})

# kubernetes/kubernetes, staging/src/k8s.io/api/batch/v1/types.go
JOB = Fields({"backoffLimit": int, "template": Fields({"metadata": LABELS_ONLY, "spec": POD}, {"spec"})}, {"template"})

# kubernetes-sigs/jobset, api/jobset/v1alpha2/jobset_types.go
JOB_SET = Fields(
    {
        "failurePolicy": Fields({"maxRestarts": int, "restartStrategy": {"Recreate", "BlockingRecreate"}}),
        "replicatedJobs": [
            Fields(
                {"name": str, "replicas": int, "template": Fields({"metadata": LABELS_ONLY, "spec": JOB}, {"spec"})},
                {"name", "template"},
            )
        ],
    }
)

# kubeflow/trainer, pkg/apis/trainer/v1alpha1/trainingruntime_types.go
TRAINING_RUNTIME = Fields(
    {
        "mlPolicy": Fields({"numNodes": int, "torch": Fields({})}),  # torch.numProcPerNode went with v2.2
        "template": Fields({"spec": JOB_SET}, {"spec"}),
    },
    {"template"},
)

# kubeflow/trainer, pkg/apis/trainer/v1alpha1/trainjob_types.go
TRAIN_JOB = Fields(
    {
        "runtimeRef": Fields(
            {"name": str, "apiGroup": str, "kind": {"TrainingRuntime", "ClusterTrainingRuntime"}}, {"name"}
        ),
        "trainer": Fields(
            {
                "image": str,
                "command": [str],
                "args": [str],
                "numNodes": int,
                "numProcPerNode": int,
                "resourcesPerNode": RESOURCES,
            }
        ),
    },
    {"runtimeRef"},
)

# kubeflow/training-operator, pkg/apis/kubeflow.org/v1/pytorch_types.go and common_types.go
REPLICAS = Fields(
    {
        "replicas": int,
        "restartPolicy": {"Always", "OnFailure", "Never", "ExitCode"},
        "template": Fields({"metadata": LABELS_ONLY, "spec": POD}, {"spec"}),
    }
)
PYTORCH_JOB = Fields(
    {
        "nprocPerNode": str,
        "elasticPolicy": Fields(
            {
                "rdzvBackend": {"c10d", "etcd", "etcd-v2"},
                "minReplicas": int,
                "maxReplicas": int,
                "maxRestarts": int,
            }
        ),
        "runPolicy": Fields({"cleanPodPolicy": {"", "All", "Running", "None"}, "backoffLimit": int}),
        "pytorchReplicaSpecs": Fields({"Master": REPLICAS, "Worker": REPLICAS}),
    },
    {"pytorchReplicaSpecs"},
)

SPECS = {
    ("v1", "PersistentVolumeClaim"): CLAIM,
    ("batch/v1", "Job"): JOB,
    ("trainer.kubeflow.org/v1alpha1", "TrainingRuntime"): TRAINING_RUNTIME,
    ("trainer.kubeflow.org/v1alpha1", "TrainJob"): TRAIN_JOB,
    ("kubeflow.org/v1", "PyTorchJob"): PYTORCH_JOB,
}


def problems_of_document(document: dict[str, Any]) -> list[str]:
    """What is wrong with one Kubernetes object, by its apiVersion and kind."""
    spec = SPECS.get((document.get("apiVersion", ""), document.get("kind", "")))
    if spec is None:
        return [f"{document.get('apiVersion')}/{document.get('kind')} is not a kind that is used here"]
    whole = Fields({"apiVersion": str, "kind": str, "metadata": METADATA, "spec": spec}, {"metadata", "spec"})
    return problems(document, whole, document["kind"])
