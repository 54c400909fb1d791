"""The wheel is whole: every file of the packages is in it, and it runs the demo where the checkout is not at hand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
PACKAGES = ("sparsemill", "featurestore", "training", "ray_jobs")


def packaged() -> set[str]:
    """Files of the packages in this checkout, but for pages that are for maintainers."""
    paths = {path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    card = Path("ray_jobs/demo/sae/README.md")
    kept = {path for path in paths if "__pycache__" not in path.parts and (path.name != "README.md" or path == card)}
    return set(map(str, kept))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools builds in the folder itself."""
    root = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(command, cwd=root, check=True)
    (built,) = (root / "dist").glob("*.whl")
    return built


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    assert packaged() - inside == set()
    for name in ("featurestore/FORMAT.md", "ray_jobs/planning/rates.yaml", "ray_jobs/demo/sae/sae_weights.safetensors"):
        assert name in inside


@pytest.mark.real
def test_the_wheel_alone_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    """In an environment of its own; only the dependencies are borrowed from this one, which knows no checkout."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip())
    # A path in a .pth file is searched after the environment's own, and .pth files in it (the checkout's) are not read.
    (site / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    asked = "import sparsemill, featurestore, training, ray_jobs; print(*(m.__file__ for m in " + (
        "(sparsemill, featurestore, training, ray_jobs)), sep='\\n')"
    )
    found = subprocess.run(
        [python, "-c", asked], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert all(Path(path).is_relative_to(site) for path in found.stdout.split()), found.stdout
    command = [tmp_path / "venv" / "bin" / "sparsemill", "demo", "--out", "demo", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said["verify"]["ok"] and said["extract"]["documents"] == 181
