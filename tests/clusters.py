"""A Ray cluster of one node, started with `ray start --head` as an administrator would, on loopback and free ports."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.crash.ground import descendants

PATIENCE = 120.0  # seconds for a dashboard to answer; a healthy machine needs a tenth of it


@dataclass(frozen=True)
class Cluster:
    """A running cluster: the URL of its dashboard, its address for drivers, where it exports metrics, its files."""

    dashboard: str
    address: str
    metrics: str
    files: Path

    def workers(self) -> list[int]:
        """Processes that are actors of ours on this node."""
        lines = command_lines()
        raylets = [pid for pid, line in lines.items() if "/raylet/raylet" in line and str(self.files) in line]
        return [
            pid for raylet in raylets for pid, line in descendants(raylet).items() if line.startswith("ray::Worker")
        ]


@contextmanager
def head_node(environment: Mapping[str, str], cpus: int = 2, programs: Path | None = None) -> Iterator[Cluster]:
    """Run a head node for as long as it lasts.

    Args:
        environment: Variables beside those of this process.
        cpus: Of the node, whatever the machine has.
        programs: The `bin` of the environment that the node runs; by default this one's.
    """
    programs = programs or Path(sys.executable).parent
    files = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: it holds sockets
    gcs, dashboard, agent, metrics = free_ports(4)
    command = [
        programs / "ray",
        "start",
        "--head",
        "--node-ip-address=127.0.0.1",
        f"--port={gcs}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}",
        f"--metrics-export-port={metrics}",
        f"--num-cpus={cpus}",
        "--object-store-memory=80000000",
        f"--temp-dir={files}",
        "--disable-usage-stats",
    ]
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"  # as if the environment were activated
    env = {**os.environ, "PATH": path, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **environment}
    env["RAY_worker_niceness"] = "0"  # at Ray's 15 workers hardly start where other work has the machine
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, done.stdout + done.stderr
        yield Cluster(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", f"http://127.0.0.1:{metrics}", files)
    finally:
        for _ in range(50):  # `ray stop` would stop everybody's Ray
            left = [pid for pid, line in command_lines().items() if str(files) in line]
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)
            if not left:
                break
            time.sleep(0.1)
        shutil.rmtree(files, ignore_errors=True)


def command_lines() -> dict[int, str]:
    """Process id -> command line of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def free_ports(n: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    try:
        return [taken.getsockname()[1] for taken in sockets]
    finally:
        for taken in sockets:
            taken.close()
