"""Put together what a cluster is sent with a job: code, job and runtime environment, and nothing secret.

The working directory that Ray uploads holds the job with its paths made absolute and the two packages that stage 1
needs, so that the code that runs is the code that submitted, on every node. torch, Ray and the rest are the cluster's
own (workers check their versions).
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.library_errors import writing
from featurestore.base.number_words import first_line
from featurestore.errors import JobSpecError
from featurestore.finding.patterns import unescaped
from featurestore.specs.spec_file import load_mapping, refuse_secrets, texts_of
from featurestore.specs.spec_yaml import plain
from featurestore.url_secrets import secret_within

if TYPE_CHECKING:
    from ray_jobs.spec import JobSpec

CODE = ("sparsemill", "ray_jobs", "featurestore")
NOT_SENT = ("__pycache__", "*.pyc", "sae")  # the demo's SAE is megabytes that no job on a cluster reads
JOB_NAME = "job.yaml"

_NESTED = {  # Ray checks these names itself, in sentences without the file
    "pip": {"packages", "pip_check", "pip_version", "pip_install_options"},
    "uv": {"packages", "uv_check", "uv_version", "uv_pip_install_options"},
}

_SECRET_NAME = re.compile(r"TOKEN(?!IZER)|SECRET|PASSW|CREDENTIAL|(?:^|_)KEY", re.IGNORECASE)


def load_runtime_env(path: str | Path) -> dict[str, Any]:
    """Read a runtime environment of Ray (env_vars, pip, ...).

    Raises:
        JobSpecError: Not a mapping, one with keys that Ray does not know (it would ignore them) or with values that it
            refuses, one with a working directory, or one with secrets: everybody who can see the dashboard can read it.
    """
    runtime_env: dict[str, Any] = {key: plain(value) for key, value in load_mapping(path, JobSpecError).items()}
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
    _check_with_ray(path, runtime_env)
    return runtime_env


def _check_with_ray(path: str | Path, runtime_env: dict[str, Any]) -> None:
    """Refuse what Ray would ignore or, once everything is sent, refuse."""
    from ray.runtime_env import RuntimeEnv, RuntimeEnvConfig

    known = {"": RuntimeEnv.known_fields, "config": RuntimeEnvConfig.known_fields, **_NESTED}
    for place, names in known.items():
        mapping = runtime_env.get(place) if place else runtime_env
        for key in mapping if isinstance(mapping, dict) else ():
            if key not in names:
                named = sorted(name for name in names - {"working_dir"} if not name.startswith("_"))
                hint = did_you_mean(key, named) or f"; it knows {', '.join(named)}"
                full = f"{place}.{key}" if place else key
                raise JobSpecError(f"{path}: Ray knows no '{full}' in a runtime environment{hint}")
    try:
        RuntimeEnv(**json.loads(json.dumps(runtime_env)))  # plain numbers, and a copy
    except (ValueError, TypeError, OSError) as error:
        raise JobSpecError(f"{path}: Ray refuses it ({first_line(error).rstrip('. ')}); correct it there") from error


def _shown_by_ray(path: str | Path, key: str) -> JobSpecError:
    return JobSpecError(
        f"{path}: {key} looks like a secret, and Ray shows a job's environment to everybody who can reach its "
        "dashboard; set it on the nodes instead (docs/cluster.md says how) or use the cloud's roles"
    )


@contextmanager
def working_directory(sent: str) -> Iterator[Path]:
    """Code and job, which `as_json` wrote, in a directory for as long as it takes to send them."""
    source = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory(prefix="sparsemill-") as name:
        directory = Path(name)
        with writing(directory):
            for entry in CODE:
                shutil.copytree(source / entry, directory / entry, ignore=shutil.ignore_patterns(*NOT_SENT))
            (directory / JOB_NAME).write_text(sent, encoding="utf-8")  # JSON is YAML
        yield directory


def as_json(job: JobSpec, label: Mapping[str, Any] | None = None) -> str:
    """The job as it is sent, or the label job that it is of.

    Raises:
        JobSpecError: It carries a secret, which everybody on the cluster could read.
    """
    plain_job = label or job.model_dump(mode="json", exclude_none=True)
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
