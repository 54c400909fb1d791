"""The walls between the packages: who may import whom, read from the sources and proven by importing."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.stores import SAE, build_store, make_documents

ROOT = Path(__file__).parent.parent
OURS = {"ray_jobs", "featurestore", "training", "sparsemill"}
ENGINE_MAY_IMPORT = {"torch", "transformers", "tokenizers", "safetensors", "numpy", "pyarrow"}
ENGINE_MAY_IMPORT_OF_OURS = ("featurestore.errors", "featurestore.base.poolings", "featurestore.base.dense_names")


def imported_modules(path: Path) -> set[str]:
    """Absolute names of every module that a file imports, wherever in the file the import stands."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module or ""]))
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("featurestore", {"ray_jobs", "training", "sparsemill", "ray", "torch", "transformers", "sae_lens"}),
        ("training", {"ray_jobs", "sparsemill", "ray", "torch", "transformers", "sae_lens"}),
        ("ray_jobs", {"training", "sparsemill"}),
    ],
)
def test_package_imports_nothing_across_its_walls(package: str, forbidden: set[str]) -> None:
    assert files(package)
    for path in files(package):
        crossing = {name for name in imported_modules(path) if name.split(".")[0] in forbidden}
        assert not crossing, f"{path.relative_to(ROOT)} imports {sorted(crossing)}"


def test_engine_imports_only_what_a_bare_gpu_machine_has() -> None:
    for path in (*files("ray_jobs/engine"), *files("ray_jobs/backbone"), *files("ray_jobs/language")):
        for name in imported_modules(path):
            top = name.split(".")[0]
            allowed = (
                top in ENGINE_MAY_IMPORT
                or top in sys.stdlib_module_names
                or name.startswith(
                    (
                        "ray_jobs.engine",
                        "ray_jobs.backbone",
                        "ray_jobs.language",
                        *(f"{module}." for module in ENGINE_MAY_IMPORT_OF_OURS),
                    )
                )
                or name in ("ray_jobs", *ENGINE_MAY_IMPORT_OF_OURS)
            )
            assert allowed, f"{path.relative_to(ROOT)} imports {name}"


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)


def test_stage_two_imports_where_ray_and_torch_are_missing() -> None:
    code = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('ray', 'torch', 'transformers', 'sae_lens', 'safetensors', 'tokenizers', 'datasets'):
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)
sys.meta_path.insert(0, Missing())
import featurestore, training, sparsemill
import pkgutil, importlib
for package in (featurestore, training):
    for module in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):
        importlib.import_module(module.name)
from featurestore import FeatureStore
print('ok')
"""
    done = run_python(code)
    assert done.stdout.strip() == "ok", done.stderr


def test_what_the_engine_takes_from_the_store_is_light() -> None:
    code = (
        f"import sys, {', '.join(ENGINE_MAY_IMPORT_OF_OURS)}; "
        "print(sorted({'pyarrow', 'polars', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    assert run_python(code).stdout.strip() == "[]"


@pytest.mark.slow
def test_stage_two_installs_and_imports_in_an_environment_of_its_own(tmp_path: Path) -> None:
    """A fresh virtual environment with the base dependencies only, from PyPI, without Ray and torch."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    # pip builds the project in its folder: build from a copy, so that the checkout stays as it is
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source)
    for name in ("sparsemill", "featurestore", "training", "ray_jobs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", source], check=True)
    code = "import sys, training; from featurestore import FeatureStore; print({'ray', 'torch'} & {*sys.modules})"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.strip() == "set()", done.stderr
    absent = "import importlib.util as u; print(u.find_spec('ray'), u.find_spec('torch'))"
    assert (
        subprocess.run([python, "-c", absent], capture_output=True, text=True, cwd=tmp_path).stdout.strip()
        == "None None"
    )
    build_store(tmp_path / "store", make_documents(60))
    study = {"store": "store", "label": "label", "features": [{"sae": SAE}], "baselines": ["hidden_mean"], "out": "out"}
    study |= {"split": {"seeds": 1, "folds": 2}, "bootstrap": 100}
    code = f"import sys, sparsemill as sm; print(sm.study({study!r})); print({{'ray', 'torch'}} & {{*sys.modules}})"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert "/out': 'label' of 60 documents; 3 methods; " in done.stdout, done.stderr
    assert done.stdout.endswith("\nset()\n")
    entry = subprocess.run(
        [tmp_path / "venv/bin/sparsemill", "study", "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    assert entry.returncode == 0, entry.stderr
