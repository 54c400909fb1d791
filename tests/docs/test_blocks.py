"""Every code block of the pages is run as a reader would run it, or says why not and is parsed."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.tooling.blocks import ROOT, RUN, SHOWN, Block, blocks_of, pages
from ray_jobs.labels.spec import is_label_job, label_job_from_mapping
from ray_jobs.spec import job_from_mapping
from tests.docs import ground
from training.spec import study_from_mapping

REASONS = ("the hub", "a GPU", "a cloud", "a cluster", "hours", "the network", "a package index", "a port")
BLOCKS = [block for page in pages() for block in blocks_of(page)]
ON_S3 = ("docs/how-to/s3.md",)
TUTORIALS = sorted(path.name for path in (ROOT / "docs/tutorials").glob("*.md"))
RUN_HERE = sorted(
    {b.page for b in BLOCKS if b.language in ("bash", "python") and not b.reason and "tutorials" not in b.page}
)


def test_every_block_says_its_language_and_what_is_not_run_says_why() -> None:
    for block in BLOCKS:
        where = f"{block.page}:{block.line}"
        assert block.language in (*RUN, *SHOWN), f"{where} has the language '{block.language}'"
        if block.reason.startswith("run by "):
            for path in re.findall(r"(?:tests|docs)/[\w/.-]+\w", block.reason):
                assert (ROOT / path).exists(), f"{where}: there is no {path}"
        elif block.reason:
            assert re.match(rf"needs (?:{'|'.join(REASONS)})\b", block.reason), f"{where}: {block.reason}"


def test_every_block_is_what_its_language_says() -> None:
    shell = []
    for block in BLOCKS:
        if block.language == "python":
            ast.parse(block.code)
        elif block.language == "yaml":
            check_yaml(block)
        elif block.language == "bash":
            shell.append(block.code)
    subprocess.run(["bash", "-n", "-c", "\n".join(shell)], check=True)


def check_yaml(block: Block) -> None:
    """A whole job, label job or study, or a piece of a study."""
    mapping = yaml.safe_load(block.code)
    where = f"{block.page}:{block.line}"
    if is_label_job(mapping):
        label_job_from_mapping(mapping, ROOT, where=where)
    elif "corpus" in mapping:
        job_from_mapping(mapping, ROOT, where=where)
    else:
        study_from_mapping({**ground.STUDY, **mapping}, ROOT, where=where)


def test_every_block_of_a_page_is_found_whole() -> None:
    for page in pages():
        fences = len(re.findall(r"^ *```", page.read_text(encoding="utf-8"), re.M))
        assert fences == 2 * sum(block.page == page.relative_to(ROOT).as_posix() for block in BLOCKS), page


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ground with its store extracted and its study done."""
    folder = tmp_path_factory.mktemp("ground")
    ground.write_ground(folder)
    done = ground.run_bash("sparsemill run job.yaml study.yaml", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def run_page(page: str, folder: Path) -> Iterator[str]:
    """Run a page's blocks in their order, in one folder and one Python; yields what each printed.

    What a tutorial shows right behind a command is what that printed.
    """
    names: dict[str, Any] = {}
    printed = ""
    for block in (block for block in BLOCKS if block.page == page and not block.reason):
        where = f"{block.page}:{block.line}"
        if block.file:
            ground.write_yaml(block, folder)
        elif block.language == "bash":
            done = ground.run_bash(block.code, folder)
            assert done.returncode == 0, (
                f"{where} ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
            printed = done.stdout
            yield printed
        elif block.language == "text" and "tutorials" in page:
            assert [line for line in block.code.splitlines() if line not in printed.splitlines()] == [], where
        elif block.language == "python":
            with ground.inside(folder):
                exec(compile(block.code, where, "exec"), names)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN_HERE)
def test_the_code_of_a_page_runs(page: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ground.copied(finished, tmp_path)
    monkeypatch.setenv("SPARSEMILL_CACHE", str(folder / "cache"))  # for Python, which runs in this process
    with ExitStack() as stack:
        if page in ON_S3:
            for name, value in stack.enter_context(ground.bucket(folder)).items():
                monkeypatch.setenv(name, value)
        printed = "".join(run_page(page, folder))
    assert "Traceback" not in printed


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One cache for all tutorials: the model is prepared once."""
    return os.environ.get("SPARSEMILL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_runs_from_an_empty_folder(
    name: str, tmp_path: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", cache)
    printed = "".join(run_page(f"docs/tutorials/{name}", tmp_path))
    assert "Traceback" not in printed
