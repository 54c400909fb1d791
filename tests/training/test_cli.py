"""The command line of stage 2."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from featurestore.errors import StudyError
from training.cli import study, study_parser


def run(arguments: list[str], as_json: bool = False) -> int:
    parser = argparse.ArgumentParser()
    study_parser(parser)
    args = parser.parse_args(arguments)
    args.json = as_json
    return study(args)


def study_file(tmp_path: Path, store: str) -> Path:
    path = tmp_path / "study.yaml"
    path.write_text(
        f"store: {store}\nlabel: label\nfeatures: [{{sae: l1_tiny}}]\nbaselines: [hidden_last]\n"
        "split: {seeds: 1, folds: 2}\nbootstrap: 100\nout: results\n"
    )
    return path


def test_it_prints_the_table_the_verdict_and_where_the_results_are(
    tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(study_file(tmp_path, store)), "--jobs", "1"]) == 0
    out = capsys.readouterr().out
    assert "hidden_last" in out
    assert "macro F1" in out
    assert "Features that decide most in l1_tiny:max" in out
    assert f"Results in {tmp_path / 'results'}" in out


def test_json_is_one_document_with_what_the_files_say(
    tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(study_file(tmp_path, store))], as_json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["summary"] == json.loads((tmp_path / "results" / "results.json").read_text())
    assert printed["explanation"] == json.loads((tmp_path / "results" / "explanation.json").read_text())


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="there is no such file"):
        run([str(tmp_path / "no.yaml")])


def test_importing_the_command_line_loads_nothing_heavy() -> None:
    code = (
        "import sys, training.cli; print([m for m in ('numpy', 'sklearn', 'pydantic', 'polars') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
