"""cluster.yaml is a valid configuration for Ray's cluster launcher, and scales from nothing."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

CLUSTER = Path(__file__).parent.parent / "cluster.yaml"


@pytest.fixture(scope="module")
def config() -> dict:
    return yaml.safe_load(CLUSTER.read_text())


def test_passes_rays_own_schema(config: dict) -> None:
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)


def test_passes_rays_own_validation_after_its_defaults_are_filled_in(config: dict) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(config))


def test_has_a_cpu_head_and_gpu_groups_that_start_from_zero(config: dict) -> None:
    groups = config["available_node_types"]
    head = groups[config["head_node_type"]]
    assert "GPU" not in head["resources"]
    for name in ("gpu_2b", "gpu_9b"):
        assert groups[name]["resources"]["GPU"] >= 1
        assert groups[name]["min_workers"] == 0
        assert groups[name]["max_workers"] >= 1


def test_rays_python_is_on_the_path_of_jobs_and_the_dashboard_on_loopback(config: dict) -> None:
    starts = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    for command in (command for command in starts if "ray start" in command):
        assert command.startswith("export PATH=$HOME/sparsemill/.venv/bin:$PATH && ray start")
    (head,) = (command for command in starts if "--head" in command)
    assert "--dashboard-host=127.0.0.1" in head


def test_eight_gpus_are_to_be_had_for_either_model(config: dict) -> None:
    for name in ("gpu_2b", "gpu_9b"):
        assert config["available_node_types"][name]["max_workers"] == 8
    assert config["max_workers"] >= 8


def test_every_node_has_an_image_for_rays_default_is_too_old(config: dict) -> None:
    for name, group in config["available_node_types"].items():
        assert "ubuntu" in (image := group["node_config"]["ImageId"]) and "24.04" in image
        assert ("nvidia-driver" in image) == name.startswith("gpu")
