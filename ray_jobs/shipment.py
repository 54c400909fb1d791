"""What goes to a cluster with a job: code, job and runtime environment, and nothing secret.

The working directory that Ray uploads holds the job with its paths made absolute and the two packages that stage 1
needs, so that the code that runs is the code that submitted, on every node; torch, Ray and the rest are the cluster's
(workers check their versions).
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from featurestore.errors import JobSpecError
from featurestore.foreign import writing
from featurestore.spec_yaml import plain
from featurestore.specfile import load_mapping, refuse_secrets, texts_of
from featurestore.tables.patterns import unescaped
from featurestore.urls import secret_within

if TYPE_CHECKING:
    from ray_jobs.spec import JobSpec

CODE = ("sparsemill.py", "ray_jobs", "featurestore")
NOT_SENT = ("__pycache__", "*.pyc", "sae")  # the demo's SAE is megabytes that no job on a cluster reads
JOB_NAME = "job.yaml"

_SECRET_NAME = re.compile(r"TOKEN(?!IZER)|SECRET|PASSW|CREDENTIAL|(?:^|_)KEY", re.IGNORECASE)


def load_runtime_env(path: str | Path) -> dict[str, Any]:
    """Read a runtime environment of Ray (env_vars, pip, ...).

    Raises:
        JobSpecError: Not a mapping, one with a working directory, or one with secrets: everybody who can see the
            dashboard can read it.
    """
    runtime_env = plain(load_mapping(path, JobSpecError))
    if "working_dir" in runtime_env:
        raise JobSpecError(f"{path}: working_dir is what submit sends itself, code and job; remove it")
    variables = runtime_env.get("env_vars", {})
    if not isinstance(variables, dict):
        raise JobSpecError(f"{path}: 'env_vars' must be a mapping of 'NAME: value' lines")
    for name, value in variables.items():
        if not isinstance(value, str):
            raise JobSpecError(f"{path}: env_vars.{name} must be text; put quotes around it")
        if _SECRET_NAME.search(name):
            raise _shown_by_ray(path, f"env_vars.{name}")
    for key, text in texts_of(runtime_env):  # `pip: [name @ git+https://TOKEN@host/...]` and the like
        if secret_within(text):
            raise _shown_by_ray(path, key)
    return runtime_env


def _shown_by_ray(path: str | Path, key: str) -> JobSpecError:
    return JobSpecError(
        f"{path}: {key} looks like a secret, and Ray shows a job's environment to everybody who can reach its "
        "dashboard; set it on the nodes instead (docs/cluster.md says how) or use the cloud's roles"
    )


@contextmanager
def working_directory(job: JobSpec) -> Iterator[Path]:
    """Code and job, in a directory for as long as it takes to send them."""
    source = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory(prefix="sparsemill-") as name:
        directory = Path(name)
        with writing(directory):
            for entry in CODE:
                if (source / entry).is_dir():
                    shutil.copytree(source / entry, directory / entry, ignore=shutil.ignore_patterns(*NOT_SENT))
                else:
                    shutil.copy(source / entry, directory)
            (directory / JOB_NAME).write_text(as_json(job), encoding="utf-8")  # JSON is YAML
        yield directory


def as_json(job: JobSpec) -> str:
    """The job as it is sent; JobSpecError if it carries a secret, which everybody on the cluster could read."""
    plain_job = job.model_dump(mode="json", exclude_none=True)
    refuse_secrets(plain_job, JobSpecError, "the job")
    return json.dumps(plain_job, indent=1)


def is_here(address: str) -> bool:
    """Whether a dashboard is on this machine, as far as its address says."""
    return urlsplit(address).hostname in ("localhost", "127.0.0.1", "::1")


def local_paths(job: JobSpec) -> list[str]:
    """What a job names on disks that every node would have to see."""
    sae_paths = [sae.path for sae in job.saes if sae.path is not None]
    corpus = map(unescaped, job.corpus.path)
    named = [*corpus, *([job.model.name] if job.model.name.startswith("/") else []), *sae_paths, job.store]
    return [path for path in named if "://" not in path]
