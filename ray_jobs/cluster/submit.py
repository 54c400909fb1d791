"""Run a job on a Ray cluster through its dashboard: submit it, follow its log, end with its exit code.

What is sent is put together by `package`. Ctrl-C stops the job, as it stops `extract`; whatever else ends the
submitting process (a closed laptop, a lost connection) leaves it running, and submitting again follows it. Once it is
over, submitting again resumes it: the store knows what is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from featurestore.errors import JobFailed, JobStopped, SparsemillError, UsageError
from featurestore.url_secrets import secret_in, shown
from ray_jobs.cluster.package import JOB_NAME, as_json, is_here, local_paths, working_directory
from ray_jobs.cluster.session import environment, token_environment

if TYPE_CHECKING:
    from ray_jobs.spec import JobSpec

RECONNECT_SECONDS = 2.0  # a dashboard that drops a connection answers again at once or is gone for longer
MAX_SILENCE_SECONDS = 120.0  # of a dashboard that does not answer at all
AGENT_SECONDS, NO_AGENT = 30.0, "No available agent"  # what a dashboard answers until the head node's agent is up
MOST_NODES = 10_000  # that a dashboard lists at once
STOP_SECONDS = 60.0  # Ray kills what it was told to stop after a few seconds

_STORE = "sparsemill_store_id"  # in a job's metadata

CHECK = 'import sys, importlib.util as u; sys.exit(not all(map(u.find_spec, ("ray", "torch", "transformers"))))'
NOT_FOUND = 127  # a shell's exit code where a command is not there


@dataclass(frozen=True)
class Submitted:
    """A job on a cluster.

    Attributes:
        submission_id: Ray's name of it.
        status: SUCCEEDED, or what it was when nobody waited for it.
        followed: Whether it was running already, and this submission only followed it.
    """

    submission_id: str
    status: str
    followed: bool


def submit(
    job: JobSpec,
    address: str,
    say: Callable[[str], None],
    log: Callable[[str], None],
    options: Sequence[str] = (),
    runtime_env: Mapping[str, Any] | None = None,
    detach: bool = False,
    label: Mapping[str, Any] | None = None,
) -> Submitted:
    """Run a job on a cluster, and wait for it.

    Args:
        job: The job, its paths absolute: every node has to see the same things there.
        address: URL of the cluster's dashboard.
        say: Called with a line of text before waiting for something.
        log: Called with pieces of the job's log as they come.
        options: Further options of the command that runs there, `extract` or `label`.
        runtime_env: Ray's runtime environment, without `working_dir`.
        detach: Return when the cluster has taken the job.
        label: The label job that `job` is of, as plain data, its paths absolute.

    Raises:
        UsageError: No cluster there, or the job refused its input (the log says why).
        JobFailed: The job failed or was stopped.
        KeyboardInterrupt: Ctrl-C; the job has been stopped.
    """
    with environment(token_environment()):
        return _submit(job, address, say, log, options, runtime_env, detach, label)


def _submit(
    job: JobSpec,
    address: str,
    say: Callable[[str], None],
    log: Callable[[str], None],
    options: Sequence[str],
    runtime_env: Mapping[str, Any] | None,
    detach: bool,
    label: Mapping[str, Any] | None,
) -> Submitted:
    document = as_json(job, label)
    digest = hashlib.sha256(document.encode()).hexdigest()
    client = _client(address)
    metadata = {"sparsemill_job": digest, "sparsemill_store": shown(job.store), _STORE: _store_id(job.store)}
    with _refusals(address):
        running = next((info for info in _jobs(client) if (info.metadata or {}).get("sparsemill_job") == digest), None)
    if running is not None:
        submission_id = str(running.submission_id)
        say(f"this job is running there already as {submission_id}; following it")
    else:
        for path in local_paths(job) if not is_here(address) else ():
            say(f"{path} is a path: every node of the cluster has to see the same there")
        name = "extract" if label is None else "label"
        command = shlex.join(["python", "-m", "sparsemill", name, JOB_NAME, "--address", "auto", *options])
        entrypoint = f"python -c {shlex.quote(CHECK)} || exit {NOT_FOUND}; exec {command}"
        submission_id = f"sparsemill-{digest[:8]}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
        with working_directory(document) as directory, _refusals(address):
            sent = {**(runtime_env or {}), "working_dir": str(directory)}
            _hand_over(client, entrypoint, sent, metadata, submission_id)
        say(f"submitted as {submission_id}; Ctrl-C stops it" if not detach else f"submitted as {submission_id}")
    if detach:
        return Submitted(submission_id, _info(client, submission_id).status.value, running is not None)
    try:
        _follow(client, submission_id, log)
    except KeyboardInterrupt:
        _stop(client, submission_id, say)
        raise
    info = _info(client, submission_id)
    if info.status.value == "SUCCEEDED":
        return Submitted(submission_id, "SUCCEEDED", running is not None)
    raise _failure(submission_id, info)


def stop_submitted(store: str, address: str, say: Callable[[str], None]) -> list[str]:
    """Stop the jobs of a cluster that write to a store, and wait until they are.

    Args:
        store: URI of the store, absolute.
        address: URL of the cluster's dashboard.
        say: Called with a line of text before waiting.

    Returns:
        Ray's names of the jobs that were stopped; none if none of that store ran there.

    Raises:
        UsageError: No cluster there, or it wants another token.
        JobFailed: A job was told to stop and still runs.
    """
    with environment(token_environment()):
        client = _client(address)
        with _refusals(address):
            ours = [info for info in _jobs(client) if (info.metadata or {}).get(_STORE) == _store_id(store)]
            names = [str(info.submission_id) for info in ours]
            for name in names:
                say(f"stopping {name}; parts that are done stay")
                if not _stopped(client, name):
                    raise JobFailed(f"{name} was told to stop and still runs; the same command asks again")
    return names


def nodes_of(address: str) -> list[dict[str, float]]:
    """What each living node of a cluster has, by Ray's names of resources.

    Args:
        address: URL of the cluster's dashboard.

    Raises:
        UsageError: No cluster there, or it wants another token.
    """
    with environment(token_environment()):
        _client(address)  # knows tokens and says what is wrong with an address
        from ray.util.state import list_nodes

        with _refusals(address):
            nodes = list_nodes(address, filters=[("state", "=", "ALIVE")], limit=MOST_NODES)
    return [node.resources_total for node in nodes]


def _store_id(store: str) -> str:
    """What tells a store from others that are shown alike: two endpoints can have a bucket of one name."""
    return hashlib.sha256(store.rstrip("/").encode()).hexdigest()


def _client(address: str) -> Any:
    parts = urlsplit(address)
    if secret_in(address) or "@" in parts.netloc:
        raise UsageError(
            "--address carries a user or password; leave it out: a cluster that asks for a token takes RAY_AUTH_TOKEN "
            "from the environment"
        )
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(
            f"--address {shown(address)} is no URL of a Ray dashboard; give one like http://127.0.0.1:8265"
        )
    from ray.job_submission import JobSubmissionClient

    # Ray lets the variables RAY_API_SERVER_ADDRESS and RAY_ADDRESS win over what it is given
    with _refusals(address), environment({"RAY_API_SERVER_ADDRESS": address}):
        return JobSubmissionClient(address)


@contextmanager
def _refusals(address: str) -> Iterator[None]:
    """What the client raises while it talks to a cluster, as one sentence."""
    try:
        yield
    except SparsemillError:
        raise
    except Exception as error:  # noqa: BLE001  (the client raises anything)
        reason = " ".join(str(error).split())
        if reason.startswith("Authentication"):
            raise UsageError(
                f"the Ray cluster at {address} asks for its token ({reason.partition('.')[0][:100]}); set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN in the environment"
            ) from None
        reason = reason[:300].rstrip(".") or type(error).__name__
        raise UsageError(
            f"the Ray cluster at {address} was not reached, or refused ({reason}); see that its dashboard runs there, "
            "with `ray status` on the head node"
        ) from None


def _hand_over(
    client: Any, entrypoint: str, runtime_env: dict[str, Any], metadata: dict[str, str], submission_id: str
) -> None:
    """Submit, waiting for a cluster that has only just been started."""
    given_up = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            client.submit_job(
                entrypoint=entrypoint, runtime_env=runtime_env, metadata=metadata, submission_id=submission_id
            )
            return
        except RuntimeError as error:
            if NO_AGENT not in str(error) or time.monotonic() > given_up:
                raise
            time.sleep(RECONNECT_SECONDS)


def _jobs(client: Any) -> list[Any]:
    """Jobs that have not ended."""
    return [info for info in client.list_jobs() if info.submission_id and not info.status.is_terminal()]


def _info(client: Any, submission_id: str) -> Any:
    """The job's details; a dashboard that does not answer is asked again for a while."""
    given_up = time.monotonic() + MAX_SILENCE_SECONDS
    while True:
        try:
            return client.get_job_info(submission_id)
        except Exception as error:  # noqa: BLE001  (the client raises anything)
            if time.monotonic() > given_up:
                raise JobFailed(
                    f"the cluster no longer answers ({type(error).__name__}); the job {submission_id} may go on: "
                    "submit again to follow or resume it"
                ) from None
            time.sleep(RECONNECT_SECONDS)


def _follow(client: Any, submission_id: str, log: Callable[[str], None]) -> None:
    """Hand on the job's log until the job ends; a connection that breaks is taken up where it broke."""
    printed = 0

    async def tail() -> None:
        nonlocal printed
        position = 0
        async for text in client.tail_job_logs(submission_id):
            position += len(text)
            if position > printed:  # a new connection begins with the whole log
                log(text[len(text) - (position - printed) :])
                printed = position

    while True:
        broke = False
        try:
            asyncio.run(tail())
        except KeyboardInterrupt:
            raise
        except Exception:  # noqa: BLE001  (aiohttp, RuntimeError, ...: whether the job lives is what counts)
            broke = True
            time.sleep(RECONNECT_SECONDS)
        if _info(client, submission_id).status.is_terminal():
            if broke:  # its last lines, which say why it ended, may have come meanwhile
                with contextlib.suppress(Exception):
                    log(client.get_job_logs(submission_id)[printed:])
            return
        time.sleep(RECONNECT_SECONDS)


def _stop(client: Any, submission_id: str, say: Callable[[str], None]) -> None:
    """Stop a job and wait until it is; a second Ctrl-C does not wait."""
    say(f"stopping {submission_id}; parts that are done stay")
    try:
        if not _stopped(client, submission_id):
            say("it still runs; `sparsemill stop` with this job and address asks again")
    except KeyboardInterrupt:
        say("it was told to stop; not waiting for it")
    except Exception as error:  # noqa: BLE001  (the client raises anything; the user must know that the job may run)
        say(
            f"it could not be stopped ({type(error).__name__}); `sparsemill stop` with this job and address tries again"
        )


def _stopped(client: Any, submission_id: str) -> bool:
    """Tell a job to stop, and wait; whether it has."""
    client.stop_job(submission_id)
    given_up = time.monotonic() + STOP_SECONDS
    while not client.get_job_info(submission_id).status.is_terminal():
        if time.monotonic() > given_up:
            return False
        time.sleep(0.2)
    return True


def _failure(submission_id: str, info: Any) -> SparsemillError:
    code = info.driver_exit_code
    if info.status.value == "STOPPED" or code == JobStopped.exit_code:
        return JobFailed(f"job {submission_id} was stopped; submitting it again goes on from there")
    if code == UsageError.exit_code:
        return UsageError(f"job {submission_id} refused its input; the last line of its log says why")
    if code == NOT_FOUND:
        return JobFailed(
            f"job {submission_id}: the `python` on the PATH with which Ray was started on the head node lacks ray, "
            "torch or transformers; start Ray from the activated environment that has them"
        )
    reason = f"exit code {code}" if code is not None else " ".join(str(info.message or "no message").split())[:300]
    return JobFailed(f"job {submission_id} failed ({reason}); its log says why, and submitting it again resumes it")
