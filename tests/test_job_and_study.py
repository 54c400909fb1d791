"""`run` says what the study wants and the job does not write before anything is prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import sparsemill

JOB: dict[str, Any] = {
    "corpus": {"path": "c.jsonl", "text": "body", "keep": ["label", "lang"]},
    "model": {"name": "google/gemma-2-2b"},
    "saes": [{"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_12/width_16k/canonical", "name": "l12"}],
    "pool": ["max"],
    "hidden": ["mean"],
    "store": "store",
}
STUDY: dict[str, Any] = {
    "store": "store",
    "label": "label",
    "features": [{"sae": "l12", "pool": "max"}],
    "baselines": ["hidden_mean"],
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": "lable"}, "label: job.yaml keeps no column 'lable'; did you mean 'label'? add it to corpus.keep"),
        ({"transfer": {"by": "language"}}, "transfer.by: job.yaml keeps no column 'language'"),
        ({"split": {"group": "author"}}, "split.group: job.yaml keeps no column 'author'"),
        ({"by": ["site"]}, "by: job.yaml keeps no column 'site'"),
        ({"baselines": [{"columns": ["margin"]}]}, "baselines: job.yaml keeps no column 'margin'"),
        ({"baselines": ["tfidf"]}, "does not keep the text, which tfidf needs; add 'body' to corpus.keep"),
        ({"text": "body"}, "text: job.yaml keeps no column 'body'"),
        ({"features": [{"sae": "l21"}]}, "features: job.yaml has no SAE 'l21'; it has: l12"),
        ({"features": [{"sae": "l12", "pool": ["max", "mean"]}]}, "has no pooling 'sum'; it has: max; add it to pool"),
        ({"baselines": ["hidden_last"]}, "stores no hidden states of kind 'last'; add hidden: [last]"),
        ({"baselines": ["pixels"]}, "stores no pixels"),
    ],
)
def test_what_the_job_does_not_write_is_said_before_it_is_paid_for(
    changes: dict[str, Any],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(yaml.safe_dump(JOB), encoding="utf-8")
    Path("study.yaml").write_text(yaml.safe_dump({**STUDY, **changes}), encoding="utf-8")
    assert sparsemill.main(["run", "job.yaml", "study.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("sparsemill: study.yaml: ") and error.count("\n") == 1 and said in error


def test_a_job_that_writes_all_of_it_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(yaml.safe_dump(JOB), encoding="utf-8")
    Path("study.yaml").write_text(yaml.safe_dump({**STUDY, "by": ["lang", "length"]}), encoding="utf-8")
    begun: list[list[str]] = []
    monkeypatch.setattr("sparsemill.chained._steps", lambda steps, _: (begun.extend(steps), (1, {}))[1])
    assert sparsemill.main(["run", "job.yaml", "study.yaml"]) == 1
    assert [step[0] for step in begun] == ["prepare", "plan", "extract", "verify", "study"]
