"""What the pages say exists, exists: tests, files, commands, modules; and the README's own job runs."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import sparsemill
from docs.tooling.blocks import blocks_of
from ray_jobs.labels.spec import label_job_from_mapping
from ray_jobs.spec import job_from_mapping
from tests.ray_jobs.jobs import write_corpus, write_job, write_models
from training.spec import study_from_mapping

ROOT = Path(__file__).parent.parent
ROOMS = [
    *sorted((ROOT / "featurestore").rglob("README.md")),
    ROOT / "tests/crash/README.md",
    ROOT / "benchmarks/README.md",
]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "featurestore" / "FORMAT.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *ROOMS,
]


def test_every_fault_of_the_reference_implementation_names_a_test_that_exists() -> None:
    rows = re.findall(r"^\| (\d+) \|.*`(tests/[\w/]+\.py)::(\w+)` \|$", (ROOT / "docs" / "faults.md").read_text(), re.M)
    assert [int(number) for number, _, _ in rows] == list(range(1, 11))
    for _, path, name in rows:
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path} has no {name}"


def anchors(page: Path) -> set[str]:
    """Those of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#]*)(#([^)]*))?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
            if anchor:
                there = page.parent / target if target else page
                assert anchor in anchors(there), f"{page.name} links to {target}#{anchor}"


def test_make_targets_that_the_pages_name_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        for words in re.findall(r"`make ([\w -]+)`", page.read_text(encoding="utf-8")):
            assert set(words.split()) <= targets, f"{page.name} names `make {words}`"


def commands_of(page: Path, program: str) -> list[str]:
    """Every call of a program in a page's code, without comments, with the first of each choice and all options.

    What somebody sees is no call.
    """
    text = page.read_text(encoding="utf-8")
    code = re.findall(r"`([^`\n]+)`", text) + [
        line for block in blocks_of(page) if block.language == "bash" for line in block.code.splitlines()
    ]
    found = [line.strip().removeprefix("$ ").partition(" #")[0] for line in code]
    found = [re.sub(r"\|[^\s\]]+|[][]", "", line).partition(" > ")[0] for line in found]
    return [line for line in found if line.startswith(f"{program} ")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_one_that_the_program_understands(page: Path) -> None:
    for line in commands_of(page, "sparsemill"):
        name, *arguments = shlex.split(line.replace("SAE:N", "l12_16k:1234"))[1:]
        if name in ("COMMAND", "--version"):
            continue
        assert name in sparsemill.COMMANDS, line
        if arguments and (name != "names" or arguments[1:]):  # a bare name is a mention, not a call
            try:
                sparsemill.command_parser(name).parse_args(arguments)
            except SystemExit:
                pytest.fail(f"{page.name}: {line}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_benchmark_of_a_page_is_there_and_has_the_options(page: Path) -> None:
    for line in commands_of(page, "python"):
        module, *arguments = shlex.split(line)[2:] if " -m " in line else [""]
        if module.partition(".")[0] in {"benchmarks", "tests"}:
            place = ROOT.joinpath(*module.split("."))
            source = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
            assert source.is_file(), line
            for option in (a for a in arguments if a.startswith("--") and a != "--help"):
                assert f'"{option}"' in source.read_text(encoding="utf-8"), f"{page.name}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_of_a_page_is_python_and_its_imports_are_there(page: Path) -> None:
    for block in (block.code for block in blocks_of(page) if block.language == "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(ast.unparse(node), {})


def test_the_readme_takes_a_minute() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_what_the_readme_shows_of_the_demo_stands_on_the_demos_page() -> None:
    shown = re.search(
        r"Among what they print.*?```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S
    )
    assert shown is not None
    whole = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in shown[1].splitlines() if line not in whole] == []


def readme_job(models: Path) -> dict[str, Any]:
    """The job of the README; its corpus, model and SAE are tiny ones that are there."""
    block = re.search(r"```yaml\n# job\.yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert block is not None
    job = yaml.safe_load(block[1])
    assert job_from_mapping(job, ROOT, where="README.md")
    job["corpus"]["path"] = str(models / "c.jsonl")
    job["corpus"]["keep"] = ["text", "label"]
    job["model"]["name"] = str(models / "tiny-gemma2")
    job["saes"] = [{"path": str(models / "sae"), "name": job["saes"][0]["name"]}]
    return dict(job)


def test_the_readmes_job_is_planned_and_priced_by_the_readmes_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "c.jsonl", 20)
    write_job(tmp_path / "job.yaml", readme_job(write_models(tmp_path)))
    plans = [line for line in commands_of(ROOT / "README.md", "sparsemill") if line.split()[1] in {"prepare", "plan"}]
    assert any("--hardware l4" in line for line in plans)
    for line in plans:
        assert sparsemill.main(shlex.split(line)[1:]) == 0, line
        if "--hardware" in line:
            said = capsys.readouterr().out
            assert "cuda" in said and "l4 in the rates file" in said and "USD" in said


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_jobs_and_studies_of_a_page_have_only_keys_that_there_are(page: Path) -> None:
    for block in (block.code for block in blocks_of(page) if block.language == "yaml"):
        mapping = yaml.safe_load(block)
        if "task" in mapping:
            assert label_job_from_mapping(mapping, ROOT, where=page.name)
        elif "corpus" in mapping:
            assert job_from_mapping(mapping, ROOT, where=page.name)
        elif "label" in mapping:
            assert study_from_mapping(mapping, ROOT, where=page.name)
