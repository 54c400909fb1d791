"""The Containerfile, as far as it can be checked where there is no daemon to build it."""

from __future__ import annotations

import re
import shlex
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
INSTALLED = (
    "constraints.txt",
    "featurestore/FORMAT.md",
    "LICENSE",
    "NOTICE",
    "pyproject.toml",
    "ray_jobs/demo/sae/sae_weights.safetensors",
    "README.md",
    "sparsemill/version.py",
)
INSTRUCTIONS = {"FROM", "COPY", "RUN", "ENV", "USER", "WORKDIR", "VOLUME", "ENTRYPOINT"}


def steps() -> list[tuple[str, list[str]]]:
    """(instruction, its words) of each line that is no comment."""
    lines = (ROOT / "Containerfile").read_text(encoding="utf-8").splitlines()
    kept = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return [(word, shlex.split(rest)) for word, rest in kept]


def of(instruction: str) -> list[list[str]]:
    return [words for name, words in steps() if name == instruction]


def test_it_is_made_of_known_instructions_and_ends_as_the_command_of_a_user_who_is_not_root() -> None:
    assert {name for name, _ in steps()} == INSTRUCTIONS
    names = [name for name, _ in steps()]
    assert of("USER") == [["mill"]] and names.index("USER") > max(i for i, name in enumerate(names) if name == "RUN")
    (entry,) = of("ENTRYPOINT")
    assert entry[0].strip("[]") in PROJECT["project"]["scripts"]
    assert any("SPARSEMILL_CACHE=/cache" in words for words in of("ENV"))


def test_its_python_is_one_that_the_package_takes() -> None:
    tags = {re.fullmatch(r"docker\.io/library/python:([\d.]+)-slim", words[0]) for words in of("FROM")}
    (version,) = {tag[1] for tag in tags if tag}
    assert None not in tags and version in SpecifierSet(PROJECT["project"]["requires-python"])


def test_what_it_installs_is_what_the_page_on_installing_says() -> None:
    commands = [part.strip() for words in of("RUN") for part in shlex.join(words).split("'&&'")]
    (install,) = [shlex.split(command) for command in commands if "pip install " in command]
    words = [word for word in install[1:] if word != "--no-cache-dir"]
    there = [word.replace("/source/", "").replace("/source[", ".[") for word in words]
    page = (ROOT / "docs" / "releasing.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("pip install ")]
    said = [shlex.split(line, comments=True)[1:] for line in lines]
    assert there in said
    extras = {extra for words in said for extra in re.findall(r"\[(\w+)\]", words[-1])}
    assert extras == set(PROJECT["project"]["optional-dependencies"]) - {"dev", "docs"}


@pytest.mark.parametrize("name", INSTALLED)
def test_what_is_installed_is_not_kept_out_of_the_image(name: str) -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert (ROOT / name).is_file()
    parts = [Path(name), *Path(name).parents][:-1]
    assert not [rule for rule in ignored for part in parts if fnmatch(str(part), rule)]


def test_the_image_of_a_cluster_has_the_version_of_the_package() -> None:
    import sparsemill

    for name in ("Dockerfile", "rayjob.yaml"):
        text = (ROOT / "examples" / "kuberay" / name).read_text(encoding="utf-8")
        assert set(re.findall(r"sparsemill:(\d[\w.]*)", text)) == {sparsemill.__version__}, name


def test_the_image_that_runs_can_compile_for_a_gpu_and_write_where_it_is_started() -> None:
    last = [words for name, words in steps()][[name for name, _ in steps()].index("FROM", 1) :]
    assert any("gcc" in words for words in last)  # Triton compiles attention with it
    started = [
        line for line in (ROOT / "Containerfile").read_text(encoding="utf-8").splitlines() if " run --rm" in line
    ]
    assert len(started) == 2 and all("--user" in line for line in started)
