"""Start a Ray on this machine for the length of a run, or connect to one that is there.

The local one is closed to the world (every port on loopback, a secret token that only its processes know), keeps no
statistics, prints nothing and declares as many CPUs as the workers ask for, so that the number of workers is the user's
choice and not the machine's. Its processes die with the driver, even if that is killed.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from featurestore.errors import JobFailed, UsageError
from featurestore.storage.steady_environment import changing_environment
from featurestore.url_secrets import shown

OBJECT_STORE_BYTES = 80 << 20  # unit reports only; 75 MB is the least that Ray accepts

KNOCK_SECONDS = 10.0  # a head node that does not accept a connection by then is not there

QUIET_ENVIRONMENT = {
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",  # every line that Ray would print into our stdout
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default; unset, it prints a warning
}
LOOPBACK_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # "clusters off", whatever the system: every port binds to 127.0.0.1
}
LOCAL_ENVIRONMENT = {
    **LOOPBACK_ENVIRONMENT,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_prestart_worker_first_driver": "0",  # idle workers that nobody uses compete with ours while starting
    "RAY_worker_niceness": "0",  # Ray's 15 hands the machine to whatever else wants it
}


def worker_environment(threads: int) -> dict[str, str]:
    """Environment of a worker process, set before it starts.

    The malloc thresholds keep large activations out of `mmap`, whose page faults cost up to a sixth of a
    CPU run (long rows; short ones hardly notice).
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
        "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
    }


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables that this process, and those that it starts meanwhile, have for as long as it lasts."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def token_environment() -> dict[str, str]:
    """What makes Ray's client show the cluster's token, where there is one and nobody has said whether to.

    Ray's own commands do the same: a cluster started where a token lies asks for it.
    """
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    there = bool(named) or (Path.home() / ".ray" / "auth_token").is_file()
    return {"RAY_AUTH_MODE": "token"} if there and "RAY_AUTH_MODE" not in os.environ else {}


@contextmanager
def ray_cluster(address: str | None, cpus: int, gpus: float) -> Iterator[Any]:
    """Connect to Ray, and leave it as it was found.

    Args:
        address: An address that `ray.init` takes, e.g. `auto`; None starts a local Ray, unless this process is already
            connected to one.
        cpus: CPUs that the workers need together; a local Ray declares at least these.
        gpus: GPUs that they need together; 0 keeps a local Ray from looking for any.

    Yields:
        The `ray` module.

    Raises:
        UsageError: There is no cluster at that address.
        JobFailed: Ray does not start here, or its processes were lost while it was used.
    """
    before = dict(os.environ)
    ours = {**QUIET_ENVIRONMENT, **({**LOCAL_ENVIRONMENT, **_authentication()} if address is None else {})}
    if address is not None:
        ours |= token_environment()
        if _is_on_loopback_only(address):
            ours |= LOOPBACK_ENVIRONMENT
    starting = ExitStack()
    starting.enter_context(changing_environment())
    try:
        os.environ.update({**ours, **before})  # what the user chose wins
        import ray

        if ray.is_initialized():
            starting.close()
            yield ray
            return
        with sigterm_unwinds() as unwind_again, _connected(ray, address, cpus, gpus):
            unwind_again()
            starting.close()
            yield ray
    except SystemExit:  # SIGTERM, by our handler or, while Ray starts or waits, by one of Ray's with another code
        raise SystemExit(128 + signal.SIGTERM) from None
    finally:
        starting.close()
        for key in os.environ.keys() - before.keys():  # which moves nothing, as adding does
            del os.environ[key]
        os.environ.update(before)


@contextmanager
def _connected(ray: Any, address: str | None, cpus: int, gpus: float) -> Iterator[None]:
    """Start Ray or connect to it, and shut down or leave it; arguments and errors as for `ray_cluster`."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        declared = {"num_cpus": max(cpus, os.cpu_count() or 1), "object_store_memory": OBJECT_STORE_BYTES}
        if not gpus:
            declared["num_gpus"] = 0
        try:
            ray.init(address="local", include_dashboard=False, **declared, **quiet)
        except Exception as error:  # Ray raises plain ones too
            raise JobFailed(f"Ray did not start on this machine ({_reason(error)}); run the command again") from error
    else:
        if is_dashboard(address):
            raise UsageError(
                f"--address {shown(address)} is the URL of a dashboard, which `submit`, `stop` and `doctor` take; on "
                "the cluster itself say auto, or the HOST:PORT that `ray start --head` printed"
            )
        try:
            _knock(address)
            ray.init(address=address, **quiet)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UsageError(
                f"no Ray cluster at {address} ({_reason(error)}); check --address with `ray status`"
            ) from None
    try:
        yield
    except ray.exceptions.RayError as error:  # not one of our workers, but Ray itself
        raise JobFailed(f"Ray failed ({_reason(error)}); what is done stays, and the same command goes on") from error
    finally:
        ray.shutdown()


@contextmanager
def sigterm_unwinds() -> Iterator[Callable[[], None]]:
    """Make SIGTERM end a run as Ctrl-C does, through every `finally`; by itself it would end the process on the spot.

    Yields:
        What to call when somebody else has set a handler: Ray does while it connects, and its own dumps a C++ stack.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield lambda: None
        return

    def unwind(_signal: int, _frame: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    def unwind_again() -> None:
        signal.signal(signal.SIGTERM, unwind)

    before = signal.getsignal(signal.SIGTERM)
    unwind_again()
    try:
        yield unwind_again
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def is_dashboard(address: str) -> bool:
    """Whether an address is the URL of a cluster's dashboard, and not one at which Ray's own processes listen."""
    return address.startswith(("http://", "https://"))


def _knock(address: str) -> None:
    """Raise OSError if nobody listens at "host:port"; Ray itself would wait for ever."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()


def _is_on_loopback_only(address: str) -> bool:
    """Whether a head node listens at 127.0.0.1 and not at the machine's own address.

    Ray's client takes 127.0.0.1 to mean the machine's address, and would wait for ever for a head that is closed to it.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host not in ("127.0.0.1", "localhost") or not port.isdigit():
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outward:
        try:
            outward.connect(("192.0.2.1", 9))  # sends nothing; it only says by which address one would leave
            socket.create_connection((outward.getsockname()[0], int(port)), timeout=1).close()
        except OSError:
            return True
    return False


def _reason(error: Exception) -> str:
    """The first line of what Ray or the system says, without its full stop."""
    said = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return (said.splitlines() or [type(error).__name__])[0].rstrip(".")


@cache
def _authentication() -> dict[str, str]:
    """A secret token for the local Rays of this process, which Ray reads once, when it is first imported.

    Where somebody else imported Ray before us it is too late: its client would then not show the token that its servers
    ask for. Such a Ray is closed by its loopback ports alone.
    """
    if "ray" in sys.modules:
        return {}
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
