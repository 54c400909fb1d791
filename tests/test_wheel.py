"""The wheel is whole: every file of the packages is in it with its licence, an sdist makes the same one, and it works.

Works means: it runs the demo where the checkout is not at hand, and pyright in strict mode is content with its types.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

import sparsemill
from tests.wheel import PACKAGES, ROOT, build, copy_source, make_environment, site_of

pytestmark = pytest.mark.slow


def packaged() -> set[str]:
    """Files of the packages in this checkout, but for pages that are for maintainers."""
    paths = {path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    card = Path("ray_jobs/demo/sae/README.md")
    kept = {path for path in paths if "__pycache__" not in path.parts and (path.name != "README.md" or path == card)}
    return set(map(str, kept))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(".", tmp_path_factory.mktemp("wheel"), source)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(wheel, tmp_path_factory.mktemp("environment") / "venv")


def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    assert packaged() - inside == set()
    for name in ("featurestore/FORMAT.md", "ray_jobs/planning/rates.yaml", "ray_jobs/demo/sae/sae_weights.safetensors"):
        assert name in inside
    assert {name.split("/")[0] for name in inside if ".dist-info/" not in name} == set(PACKAGES)


def test_the_notice_says_of_every_file_that_is_no_python_whose_it_is(wheel: Path) -> None:
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    patterns = re.findall(r"^    (\S+)  ", notice, re.M)
    with zipfile.ZipFile(wheel) as archive:
        data = [
            name for name in archive.namelist() if not name.endswith((".py", "py.typed")) and ".dist-info/" not in name
        ]
        licences = [name for name in archive.namelist() if ".dist-info/licenses/" in name]
    assert data and {Path(name).name for name in licences} == {"LICENSE", "NOTICE"}
    for name in data:
        assert any(fnmatch(name, pattern) for pattern in patterns), f"NOTICE does not say under which licence {name} is"
    for pattern in patterns:
        assert any(fnmatch(name, pattern) for name in data), f"NOTICE names {pattern}, and no such file is shipped"


def test_the_version_stands_in_one_place(wheel: Path) -> None:
    assert wheel.name.startswith(f"sparsemill-{sparsemill.__version__}-py3-none-any")
    written = re.compile(rf"(?<![\d.]){re.escape(sparsemill.__version__)}(?![\d.])")
    for path in (ROOT / "sparsemill").glob("*.py"):
        found = len(written.findall(path.read_text(encoding="utf-8")))
        assert found == (path.name == "version.py"), path
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dynamic"]


def test_an_sdist_makes_the_same_wheel(wheel: Path, source: Path, tmp_path: Path) -> None:
    make = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", make], cwd=source, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"constraints.txt", "CHANGELOG.md", "NOTICE", "LICENSE", "pyproject.toml"} <= names
    again = build(sdist, tmp_path / "again", tmp_path)
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        records = [
            {(info.filename, info.CRC) for info in archive.infolist() if not info.filename.endswith("RECORD")}
            for archive in (one, other)
        ]
    assert records[0] == records[1]


def test_pyright_in_strict_mode_finds_nothing_on_a_users_side(environment: Path, tmp_path: Path) -> None:
    script = tmp_path / "user.py"
    shutil.copy(ROOT / "tests" / "typed" / "user.py", script)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict", "include": ["user.py"]}))
    pyright, python = Path(sys.executable).parent / "pyright", environment / "bin" / "python"
    command = [pyright, "--pythonpath", python, "--project", tmp_path, "--outputjson"]
    said = json.loads(subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout)
    assert said["summary"]["filesAnalyzed"] == 1
    assert said["generalDiagnostics"] == []
    script.write_text(f"{script.read_text(encoding='utf-8')}\nsm.open('store').matrx('l12_16k')\n")
    (found,) = json.loads(subprocess.run(command, capture_output=True, text=True, cwd=tmp_path).stdout)[
        "generalDiagnostics"
    ][:1]
    assert "matrx" in found["message"]


@pytest.mark.real
def test_the_wheel_alone_runs_the_demo(environment: Path, tmp_path: Path) -> None:
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    asked = f"import {', '.join(PACKAGES)}; print(*(m.__file__ for m in ({', '.join(PACKAGES)})), sep='\\n')"
    python = environment / "bin" / "python"
    found = subprocess.run([python, "-c", asked], cwd=tmp_path, env=outside, check=True, capture_output=True, text=True)
    assert all(Path(path).is_relative_to(site_of(python)) for path in found.stdout.split()), found.stdout
    command = [environment / "bin" / "sparsemill", "demo", "--out", "demo", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=outside, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said["verify"]["ok"] and said["extract"]["documents"] == 181
