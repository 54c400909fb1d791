"""The KubeRay manifest against the schema of a RayJob, and against what the rest of the project says."""

from __future__ import annotations

import copy
import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import sparsemill
from ray_jobs.spec import job_from_mapping

ROOT = Path(__file__).parent.parent
MANIFEST = ROOT / "examples" / "kuberay" / "rayjob.yaml"
SCHEMA = json.loads((ROOT / "tests" / "kuberay" / "rayjob.schema.json").read_text())


@pytest.fixture(scope="module")
def documents() -> dict[str, dict[str, Any]]:
    return {document["kind"]: document for document in yaml.safe_load_all(MANIFEST.read_text())}


@pytest.fixture
def rayjob(documents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return copy.deepcopy(documents["RayJob"])


def test_passes_the_schema(rayjob: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(rayjob, SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["spec", "shutdownAfterJobFinish"], True),
        (["spec", "backoffLimit"], "3"),
        (["spec", "submissionMode"], "Batch"),
        (["spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-cpus"], 0),
        (["spec", "rayClusterSpec", "autoscalerOptions", "upscalingMode"], "Fast"),
        (["spec", "rayClusterSpec", "workerGroupSpecs", 0, "minReplicas"], None),
        (["spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "container"], []),
        (
            ["spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0, "resources", "limits"],
            {"a": "8Gb"},
        ),
    ],
)
def test_the_schema_refuses_what_the_operator_would_not_understand(
    rayjob: dict[str, Any], path: list[Any], value: Any
) -> None:
    place = rayjob
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(rayjob, SCHEMA)


def test_the_entry_point_is_a_command_and_its_job_a_job(
    documents: dict[str, dict[str, Any]], rayjob: dict[str, Any]
) -> None:
    python, dash_m, module, command, job, *options = shlex.split(rayjob["spec"]["entrypoint"])
    assert (python, dash_m, module) == ("python", "-m", "sparsemill")
    assert command in sparsemill.COMMANDS
    assert options == ["--address", "auto"]
    head = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (mount,) = (mount for mount in head["containers"][0]["volumeMounts"] if job.startswith(mount["mountPath"]))
    (volume,) = (volume for volume in head["volumes"] if volume["name"] == mount["name"])
    configmap = documents["ConfigMap"]
    assert volume["configMap"]["name"] == configmap["metadata"]["name"]
    spec = job_from_mapping(yaml.safe_load(configmap["data"][Path(job).name]), "/")
    group = rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
    assert spec.workers.max == group["maxReplicas"] == 8
    assert group["minReplicas"] == group["replicas"] == 0
    assert group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_ray_of_manifest_image_and_constraints_is_one(rayjob: dict[str, Any]) -> None:
    version = rayjob["spec"]["rayClusterSpec"]["rayVersion"]
    assert f"\nray=={version}\n" in (ROOT / "constraints.txt").read_text()
    assert f"FROM rayproject/ray:{version}-py311-gpu" in (MANIFEST.parent / "Dockerfile").read_text()


def test_no_secret_stands_in_the_manifest(rayjob: dict[str, Any]) -> None:
    for group in (
        rayjob["spec"]["rayClusterSpec"]["headGroupSpec"],
        *rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"],
    ):
        for variable in group["template"]["spec"]["containers"][0]["env"]:
            if "TOKEN" in variable["name"] or "KEY" in variable["name"]:
                assert set(variable) == {"name", "valueFrom"}


def test_the_cluster_is_gone_when_the_job_is_and_closed_to_others(
    documents: dict[str, dict[str, Any]], rayjob: dict[str, Any]
) -> None:
    assert rayjob["spec"]["shutdownAfterJobFinishes"] is True
    policy = documents["NetworkPolicy"]["spec"]
    assert policy["policyTypes"] == ["Ingress"]
    assert all(rule.get("from") for rule in policy["ingress"])
