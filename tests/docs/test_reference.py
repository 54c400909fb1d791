"""The reference is what the code says: pages, schemas of both files, shapes of what is printed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import sparsemill
from docs.tooling import __main__ as tooling
from docs.tooling import keys, outputs
from featurestore.specs.spec_yaml import plain
from ray_jobs.labels.spec import load_label_job
from ray_jobs.spec import load_job
from training.spec import load_study

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted(
    [
        *(ROOT / "examples").glob("*.yaml"),
        *(ROOT / "examples/behaviour").rglob("*.yaml"),
        *keys.EXAMPLES.glob("*.yaml"),
    ]
)
LOAD = {"job": load_job, "label": load_label_job, "study": load_study}


def kind_of(path: Path) -> str:
    """job, label or study, by the schema that an example names in its first line."""
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text(encoding="utf-8"))
    assert named is not None, f"{path} names no schema"
    assert (path.parent / named[1]).resolve() in tooling.SCHEMAS.iterdir()
    return Path(named[1]).name.partition(".")[0]


def validator(kind: str) -> jsonschema.Draft202012Validator:
    """Of the published schema."""
    return jsonschema.Draft202012Validator(json.loads((tooling.SCHEMAS / f"{kind}.schema.json").read_text("utf-8")))


def test_pages_and_schemas_are_those_that_the_code_makes(capsys: pytest.CaptureFixture[str]) -> None:
    assert tooling.main(["--check"]) == 0, f"{capsys.readouterr().err}python -m docs.tooling makes them anew"


def test_a_stale_page_is_found_and_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tooling, "ROOT", tmp_path)
    monkeypatch.setattr(tooling, "REFERENCE", tmp_path / "reference")
    monkeypatch.setattr(tooling, "SCHEMAS", tmp_path / "schemas")
    assert tooling.main([]) == 0 and tooling.main(["--check"]) == 0
    (tmp_path / "reference/job.md").write_text("typed")
    (tmp_path / "reference/schemas/gone.schema.json").write_text("{}")
    capsys.readouterr()
    assert tooling.main(["--check"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "reference/job.md is stale",
        "reference/schemas/gone.schema.json is stale",
    ]
    assert tooling.main([]) == 0 and tooling.main(["--check"]) == 0


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_example_is_accepted_by_the_program_and_by_its_schema(path: Path) -> None:
    kind = kind_of(path)
    LOAD[kind](path)
    validator(kind).validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["job", "label", "study"])
def test_every_key_has_a_meaning_and_an_example(name: str) -> None:
    kind = keys.kinds()[name]
    sections = {section.place for section in keys.keys(kind)}
    for section in keys.keys(kind):
        for row in section.rows:
            assert row.meaning, row.place
            assert row.example or row.place in sections, f"{'.'.join(row.place)}: no file in {keys.EXAMPLES} has it"


def slips(mapping: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The same with one key misspelt, or one value that no key takes."""
    for key, value in mapping.items():
        yield {**{k: v for k, v in mapping.items() if k != key}, f"{key}x": value}
        if isinstance(value, dict):
            yield from ({**mapping, key: below} for below in slips(value))
    yield {**mapping, next(iter(mapping)): {"nonsense": 1}}


@pytest.mark.parametrize("name", ["job-1", "label-1", "study-1"])
def test_a_slip_is_refused_by_the_schema_too(name: str) -> None:
    path = keys.EXAMPLES / f"{name}.yaml"
    against = validator(kind_of(path))
    for wrong in slips(yaml.safe_load(path.read_text(encoding="utf-8"))):
        assert not against.is_valid(wrong), wrong


def test_a_schema_takes_what_people_write(tmp_path: Path) -> None:
    study = "store: s\nlabel: l\nfeatures: {}\nsplit: {exclude_classes: [010, no, 3]}\nrefit: no\n".replace(
        "{}", "[{sae: a, pool: max, binarize: learnt, scale: sqrt, control: yes}]", 1
    )
    (tmp_path / "study.yaml").write_text(study)
    load_study(tmp_path / "study.yaml")
    validator("study").validate(plain(yaml.safe_load(study)))
    validator("study").validate(
        yaml.load(study, Loader=yaml.BaseLoader) | {"split": {"exclude_classes": ["010", "no"]}}
    )


def test_every_command_has_a_shape_and_every_shape_a_command() -> None:
    assert {shape.command for shape in outputs.SHAPES} == {"", *sparsemill.COMMANDS}


def test_a_key_that_nobody_documented_is_found() -> None:
    said = {"version": 1, "report": "a.html"}
    assert outputs.problem_of(said) is None
    assert "no command prints the keys version, report, size" in str(outputs.problem_of({**said, "size": 1}))
    assert "1 is not of type 'string'" in str(outputs.problem_of({**said, "report": 1}))
    assert "1 was expected" in str(outputs.problem_of({**said, "version": 2}))
