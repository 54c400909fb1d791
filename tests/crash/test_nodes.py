"""Nodes that come and go: several raylets on this machine, and Ray's own autoscaler over its fake provider."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clusters import free_ports
from tests.crash.ground import PATIENCE, UNITS, Ground, assert_whole, descendants, eventually, fault, mapping, start
from tests.ray_jobs.jobs import parts_of, write_job

pytestmark = pytest.mark.slow

CLOSED = {  # as our own local Ray: everything on loopback, nothing reported, no idle workers
    "RAY_AUTH_MODE": "disabled",  # a token that somebody left in ~/.ray would close the head to these drivers
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_worker_niceness": "0",  # at Ray's 15 workers hardly start where other work has the machine
}
QUICK_HEALTH = {  # a node is given up after some three seconds instead of half a minute
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
}
NODES = 3
LONGEST = 480.0  # seconds for nodes to be started, a run, and no more


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs, where nothing runs, and three nodes with one each."""
    for name, value in {**CLOSED, **QUICK_HEALTH}.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    started = Cluster()
    try:
        started.add_node(num_cpus=0, node_ip_address="127.0.0.1", include_dashboard=False)
        for _ in range(NODES):
            started.add_node(num_cpus=1, node_ip_address="127.0.0.1")
        yield started
    finally:
        started.shutdown()


def workers_of(node: Any) -> list[int]:
    """Our workers with a unit in hand on one node of a cluster."""
    (raylet,) = (info.process.pid for info in node.all_processes["raylet"])
    return [pid for pid, command in descendants(raylet).items() if command.startswith("ray::WorkerActor.run")]


def test_a_run_outlives_two_of_three_nodes_without_being_rerun(ground: Ground, models: Path, cluster: Any) -> None:
    write_job(ground.job, {**mapping(models, ground.store), "workers": {"max": NODES, "cpus": 1, "gpus": 0}})
    driver = start(ground.job, "--json", "--address", cluster.address)
    for _ in range(2):
        there = len(parts_of(ground.store)) if ground.store.exists() else 0
        eventually(lambda there=there: ground.store.exists() and len(parts_of(ground.store)) > there, driver)
        victim = eventually(lambda: next((node for node in cluster.worker_nodes if workers_of(node)), None), driver)
        cluster.remove_node(victim, allow_graceful=False)
    out, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    assert "a worker died" in err
    result = json.loads(out)
    assert (result["units_run"], result["documents"]) == (UNITS, UNITS * 250)
    assert_whole(ground)


@pytest.fixture
def first_worker_waits(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its first commit, until the marker is deleted; so that a short job is not over before a node is up."""
    for name, value in fault(ground, "worker.before_write=wait").items():
        monkeypatch.setenv(name, value)


def test_a_node_that_joins_late_gets_work(ground: Ground, models: Path, first_worker_waits: None, cluster: Any) -> None:
    for node in list(cluster.worker_nodes)[1:]:
        cluster.remove_node(node)
    write_job(ground.job, {**mapping(models, ground.store), "workers": {"cpus": 1, "gpus": 0}})
    driver = start(ground.job, "--json", "--address", cluster.address)
    eventually(lambda: any(workers_of(node) for node in cluster.worker_nodes), driver)
    cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
    eventually(lambda: len(parts_of(ground.store)) >= UNITS - 1, driver)  # all by the one that came late
    ground.marker.unlink()
    out, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    assert json.loads(out)["workers"] == 2
    assert_whole(ground)


@contextlib.contextmanager
def autoscaling_head() -> Iterator[tuple[str, int]]:
    """`ray start --head` with an autoscaler whose nodes are raylets on this machine; yields address and process.

    `ray.cluster_utils.AutoscalingCluster` does the same, but stops every Ray on the machine first, and its example file
    is not in the wheel.
    """
    # Paths of sockets may have 107 characters, of which pytest's own directories leave too few.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        yield from _autoscaling_head(Path(directory))


def _autoscaling_head(directory: Path) -> Iterator[tuple[str, int]]:
    port, agent, metrics = free_ports(3)
    config = directory / "autoscaler.yaml"
    node = {"resources": {"CPU": 1, "object_store_memory": 80 << 20}, "node_config": {}, "min_workers": 0}
    config.write_text(
        json.dumps(
            {
                "cluster_name": "fake",
                "max_workers": NODES,
                "upscaling_speed": NODES,
                "idle_timeout_minutes": 0.05,
                "provider": {
                    "type": "fake_multinode",
                    "gcs_address": f"127.0.0.1:{port}",
                    "launch_multiple": True,
                    "foreground_node_launch": True,  # in the background more are ordered while the first ones start
                    "use_node_id_as_ip": True,
                    "disable_node_updaters": True,
                    "disable_launch_config_check": True,
                },
                "auth": {},
                "head_node_type": "ray.head.default",
                "available_node_types": {
                    "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                    "worker": {**node, "max_workers": NODES},
                },
                **{key: {} for key in ("docker", "file_mounts")},
                **{
                    key: []
                    for key in (
                        "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
                        "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files",
                        "rsync_exclude", "rsync_filter",
                    )
                },
                "file_mounts_sync_continuously": False,
            }
        )
    )  # fmt: skip
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", "--head", "--block", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"]
    command += [f"--autoscaling-config={config}", "--node-ip-address=127.0.0.1", "--disable-usage-stats"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
    command += [f"--temp-dir={directory / 'ray'}", f"--object-store-memory={80 << 20}"]
    environment = {**os.environ, **CLOSED, "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
    with (directory / "head.log").open("w") as log:
        head = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        try:
            eventually(lambda: _listens(port), head)
        except AssertionError as error:
            raise AssertionError(f"{error}: {(directory / 'head.log').read_text()[-3000:]}") from error
        yield f"127.0.0.1:{port}", head.pid
    finally:
        family = descendants(head.pid)
        for pid in [head.pid, *family]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        head.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def nodes(head: int) -> int:
    """Nodes beside the head: raylets that run below its process, whose monitor starts the others."""
    return sum("/raylet/raylet" in command.split(" ")[0] for command in descendants(head).values()) - 1


def test_the_autoscaler_starts_three_nodes_for_a_run_and_stops_them_afterwards(ground: Ground, models: Path) -> None:
    write_job(ground.job, {**mapping(models, ground.store), "workers": {"max": NODES, "cpus": 1, "gpus": 0}})
    with autoscaling_head() as (address, head):
        eventually(lambda: nodes(head) == 0)
        driver = start(ground.job, "--json", "--address", address, env=CLOSED)
        seen: set[int] = set()
        given_up = time.monotonic() + LONGEST
        while driver.poll() is None:
            seen.add(nodes(head))
            if time.monotonic() > given_up:
                driver.kill()
            time.sleep(0.2)
        out, err = driver.communicate()
        assert driver.returncode == 0, err
        assert json.loads(out)["units_run"] == UNITS
        assert_whole(ground)
        assert max(seen) == NODES, seen
        eventually(lambda: nodes(head) == 0)
