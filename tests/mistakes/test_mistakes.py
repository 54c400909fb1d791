"""What a stranger does wrong is answered with one sentence, and nothing that was there is changed or lost."""

from __future__ import annotations

import io
import json
import logging
import re
import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import sparsemill
from sparsemill.commands import COMMANDS
from tests.mistakes.ground import JOB, LABEL, STUDY, digest, make_ground, traces

TABLE: dict[str, list[list[Any]]] = yaml.load(
    (Path(__file__).parent / "table.yaml").read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
)
LEAST = 250
PYTHON = re.compile(r"\b(True|False|None|Traceback|datetime|tuple|dict|NoneType|Errno)\b")
WRONG = "wrong.yaml"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ground").resolve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.chdir(folder)
        make_ground(folder)
        before = digest(folder)
        yield folder
        assert digest(folder) == before


def test_the_table_is_long_and_names_every_command_and_every_key() -> None:
    from ray_jobs.labels.spec import LabelSpec
    from ray_jobs.spec import JobSpec
    from training.spec import StudySpec

    assert sum(map(len, TABLE.values())) >= LEAST
    for command in COMMANDS:
        assert TABLE.get(f"sparsemill {command}"), command
    for spec, model in (("job.yaml", JobSpec), ("study.yaml", StudySpec), ("label.yaml", LabelSpec)):
        for key in model.model_fields:
            assert TABLE.get(f"{spec}: {key}"), key


@pytest.mark.parametrize("section", TABLE)
def test_a_mistake_is_answered_with_one_sentence_and_costs_nothing(
    ground: Path, section: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = []
    for line, says, *more in TABLE[section]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        before = traces(ground)
        options: dict[str, Any] = more[0] if more else {}
        code, said = answer(line, section.partition(":")[0], capsys)
        changed = {name for name, trace in traces(ground).items() ^ before.items()} - {"."}
        left = {name for name in changed if name.partition("/")[0] != options.get("leaves")}
        if "leaves" in options:
            remove(ground / options["leaves"])
        sentence = said.replace(f"{ground}/", "")
        at = [sentence.find(words) for words in says.split(" ...")]
        if code != options.get("code", 2) or at != sorted(at) or at[0] < 0 or PYTHON.search(sentence) or left:
            wrong.append((line, code, sentence, says, sorted(left)))
    assert not wrong, "\n\n".join(
        f"{line}\n  exit code {code}: {sentence}\n  expected: {says}" + (f"\n  changed: {left}" if left else "")
        for line, code, sentence, says, left in wrong
    )


def answer(line: str, spec: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code and what is said of a line of the table; of a refusal it is the same as JSON."""
    argv = shlex.split(line.replace("{sha256}", "a" * 64)) if spec.startswith("sparsemill") else None
    if argv is None:
        command, base = {"job.yaml": ("plan", JOB), "study.yaml": ("study", STUDY), "label.yaml": ("label", LABEL)}[
            spec
        ]
        key = line.partition(":")[0]
        kept = (old for old in base.splitlines() if not old.startswith(f"{key}:"))
        Path(WRONG).write_text("".join(f"{one}\n" for one in (*kept, line)), encoding="utf-8")
        argv = [command, WRONG]
    capsys.readouterr()
    try:
        with warnings.catch_warnings():
            code = sparsemill.main([*argv, "--json"])
    except SystemExit as stop:
        code = int(str(stop.code))
    finally:
        logging.disable(logging.NOTSET)
        Path(WRONG).unlink(missing_ok=True)
    out, err = capsys.readouterr()
    if code == 1:
        return code, out + err
    sentence = err.splitlines()[-1] if err else ""
    assert sentence.startswith("sparsemill: "), (line, out[:300], err)
    sentence = sentence.removeprefix("sparsemill: ")
    assert json.loads(out) == {"version": 1, "error": sentence, "exit_code": code}, line
    return code, sentence


def remove(folder: Path) -> None:
    """Remove what a command left, which the table allows it."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
