"""Nothing that the product reads can run code: no pickle, no eval, no loader that would do either."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [p for name in ("sparsemill", "featurestore", "training", "ray_jobs") for p in (ROOT / name).rglob("*.py")]
UNPICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve"}
BUILTINS = {"eval", "exec", "compile", "__import__"}


def dangers(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    classes = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    safe = {node.name for node in classes if any(ast.unparse(base).endswith("SafeLoader") for base in node.bases)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in UNPICKLERS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLERS:
            yield str(node.module)
        elif isinstance(node, ast.ImportFrom) and node.module == "joblib":
            yield from (alias.name for alias in node.names if alias.name == "load")
        elif isinstance(node, ast.Call):
            yield from _call(node, safe)


def _call(node: ast.Call, safe: set[str]) -> Iterator[str]:
    called, keywords = ast.unparse(node.func), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if called in BUILTINS:
        yield called
    if keywords.get("allow_pickle") == "True" or keywords.get("trust_remote_code") == "True":
        yield f"{called} with {keywords}"
    if called == "joblib.load" or (called == "torch.load" and keywords.get("weights_only") != "True"):
        yield called
    if called in {"yaml.load", "yaml.load_all"} and keywords.get("Loader") not in {
        "yaml.SafeLoader",
        "yaml.CSafeLoader",
        *safe,
    }:
        yield ast.unparse(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_source_file_runs_no_code_from_data(path: Path) -> None:
    assert list(dangers(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "eval(x)",
        "np.load(f, allow_pickle=True)",
        "torch.load(f)",
        "yaml.load(f)",
    ],
)
def test_the_check_sees_what_it_is_for(source: str) -> None:
    assert list(dangers(source))
