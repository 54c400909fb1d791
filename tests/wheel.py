"""The wheel of this checkout and an environment that has it: what somebody holds who has only installed Sparsemill.

Dependencies are borrowed from the environment in which the tests run, so that nothing is fetched and none of their
versions differ; the project itself comes from the wheel alone, and its checkout is not seen.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE", "MANIFEST.in", "CHANGELOG.md", "constraints.txt")
PACKAGES = ("sparsemill", "featurestore", "training", "ray_jobs")


def copy_source(folder: Path) -> Path:
    """Copy what a build reads, because setuptools builds in the folder itself."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        shutil.copy(ROOT / name, folder)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def build(source: str | Path, folder: Path, cwd: Path) -> Path:
    """Build the wheel of a folder or an sdist."""
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(command, cwd=cwd, check=True)
    (built,) = folder.glob("*.whl")
    return built


def make_environment(wheel: Path, folder: Path) -> Path:
    """Make a virtual environment with the wheel, and return its folder.

    Ray's command is there as an installation would have put it there.
    """
    python = folder / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    # A path in a .pth file is searched after the environment's own, and .pth files in it (the checkout's) are not read.
    (site_of(python) / "borrowed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    ray = folder / "bin" / "ray"
    ray.write_text(f"#!{python}\nimport sys\n\nfrom ray.scripts.scripts import main\n\nsys.exit(main())\n")
    ray.chmod(0o755)
    return folder


def site_of(python: Path) -> Path:
    """The folder of packages of an environment."""
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip())
