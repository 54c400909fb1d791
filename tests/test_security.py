"""What docs/security.md promises and the sources can show: no pickles, no remote code, no secrets, loopback."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PACKAGES = ("sparsemill", "ray_jobs", "featurestore", "training")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EXECUTING = {
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "pickle.load",
    "pickle.loads",
    "cloudpickle.load",
    "cloudpickle.loads",
    "torch.load",
    "joblib.load",
    "marshal.loads",
    "yaml.unsafe_load",
    "yaml.full_load",
    "pd.read_pickle",
    "read_pickle",
}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """(dotted name, call) of every call in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_no_remote_code_is_ever_trusted() -> None:
    for path in SOURCES:
        for name, call in calls(path):
            for keyword in call.keywords:
                if keyword.arg == "trust_remote_code":
                    assert isinstance(keyword.value, ast.Constant), f"{path}: {name}"
                    assert keyword.value.value is False, f"{path}: {name}"
            if re.fullmatch(r"Auto\w+\.from_pretrained", name):  # where transformers could run code, it is told not to
                assert "trust_remote_code" in {keyword.arg for keyword in call.keywords}, f"{path}: {name}"
        assert not re.search(r"trust_remote_code\W*(=|:)\s*True", path.read_text(encoding="utf-8")), path


def test_nothing_that_runs_code_from_data_is_called() -> None:
    for path in SOURCES:
        for name, call in calls(path):
            if (path.name, name) == ("unpickle_child.py", "torch.load"):  # tensors only, in a process of its own
                assert {k.arg: ast.unparse(k.value) for k in call.keywords}["weights_only"] == "True"
                continue
            assert name not in EXECUTING, f"{path}:{call.lineno} calls {name}"
            if name.endswith("np.load") or name == "numpy.load":
                allowed = {k.arg: ast.unparse(k.value) for k in call.keywords}.get("allow_pickle", "False")
                assert allowed == "False", f"{path}:{call.lineno}"
            if name == "yaml.load":
                loader = next(ast.unparse(k.value) for k in call.keywords if k.arg == "Loader")
                assert loader in ("_SpecLoader", "yaml.CSafeLoader"), f"{path}:{call.lineno}"
            shell = {k.arg: ast.unparse(k.value) for k in call.keywords}.get("shell", "False")
            assert shell == "False", f"{path}:{call.lineno}"


def test_yaml_is_read_by_a_loader_that_makes_plain_data_only() -> None:
    from featurestore.specs.spec_file import _SpecLoader

    assert issubclass(_SpecLoader, yaml.SafeLoader)
    assert issubclass(yaml.CSafeLoader, yaml.constructor.SafeConstructor)


@pytest.mark.parametrize("path", ["cluster.yaml", "README.md", "docs/cluster.md", "docs/security.md"])
def test_every_dashboard_that_the_pages_start_is_bound_to_loopback(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    for command in re.findall(r"ray start[^\n`]*--head[^\n`]*", text):
        assert "--dashboard-host=127.0.0.1" in command or "--dashboard-host 127.0.0.1" in command, command
    assert "0.0.0.0:8265" not in text


def test_a_local_ray_has_no_dashboard_and_asks_for_a_token() -> None:
    source = (ROOT / "ray_jobs" / "cluster" / "session.py").read_text(encoding="utf-8")
    assert "include_dashboard=False" in source
    from ray_jobs.cluster.session import LOCAL_ENVIRONMENT

    assert LOCAL_ENVIRONMENT["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
