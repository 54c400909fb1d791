"""What a stranger calls a class, a label or a document reaches no terminal as it is: on stdout and stderr alike."""

from __future__ import annotations

from pathlib import Path

import pytest

import sparsemill
from tests.training.stores import SAE, build_store, make_documents

STRANGE = "spam\x1b[2J"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("strange")
    documents = make_documents(n=90, classes=("ham", STRANGE))
    documents.extra = {
        "other": [f"eggs\x1b[2J{n % 20}" if n % 2 else "ham" for n in range(90)],
        "lang": ["en\x1b[2J"] * 90,
    }
    build_store(root / "store", documents)
    (root / "study.yaml").write_text(
        f"store: store\nlabel: label\nfeatures: [{{sae: {SAE}}}]\nbaselines: [tfidf]\nsplit: {{seeds: 1, folds: 2}}\n"
        "bootstrap: 100\nby: lang\nout: out\noperating_point: {class: ham, precision: 0.7, undecided: 0.1}\n"
    )
    return root


def said(line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    try:
        code = sparsemill.main(line)
    except SystemExit as stop:
        code = int(str(stop.code))
    both = capsys.readouterr()
    said = both.out + both.err
    assert code in (0, 2), said
    assert not [char for char in said if not char.isprintable() and char not in "\n\t"], said
    return said


def test_no_command_of_a_study_lets_a_name_through(
    ground: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ground)
    assert r"spam\x1b[2J 45" in said(["study", "study.yaml"], capsys)
    model = "out/models/sae.json"
    assert r"-> spam\x1b[2J" in said(["explain", model], capsys)
    assert r"spam\x1b[2J" in said(["explain", model, "--toward", "spm"], capsys)
    predict = ["predict", model, "--store", "store", "--drift"]
    assert r"spam\x1b[2J" in said([*predict, "--evaluate", "label"], capsys)
    assert r"labels that are no class: eggs\x1b[2J" in said([*predict, "--evaluate", "other"], capsys)
    assert r"its labels: 'en\x1b[2J'" in said([*predict, "--evaluate", "lang"], capsys)
