"""`init` looks at somebody's table and writes a job and a study that are what they would have written."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

import sparsemill.first_job
from featurestore.starting.cli import ModelChoice
from featurestore.starting.guess import guess_roles
from ray_jobs.spec import load_job
from training.spec import load_study

Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real choice takes 240 MB from PyPI, which tests/test_demo.py does."""
    lines = ("model: {name: google/gemma-2-2b}", "saes:", "  - {release: r, id: layer_1/width_16k, name: l1}")
    monkeypatch.setattr(sparsemill.first_job, "_text_model", lambda: ModelChoice(lines, "l1", "a model"))


PNG = b"\x89PNG\r\n\x1a\n"


def rows(n: int = 120) -> Rows:
    dice = random.Random(0)
    words = ["the", "of", "and", "to", "in", "is", "it", "that", "was", "for", "on", "are"]
    return [
        {
            "comment_id": f"c{number}",
            "body": " ".join(dice.choices(words, k=dice.randint(4, 30))),
            "author": f"user{number % 17}",
            "lang": ("en", "de")[number % 2],
            "toxic": number % 3 == 0,
            "score": dice.random(),
            "split": "test" if number % 5 == 0 else "train",
        }
        for number in range(n)
    ]


def write_csv(path: Path, table: Rows) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(table)


def write_jsonl(path: Path, table: Rows) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in table), encoding="utf-8")


def write_parquet(path: Path, table: Rows) -> None:
    pl.DataFrame(table).write_parquet(path)


@pytest.mark.parametrize(("ending", "write"), [("csv", write_csv), ("jsonl", write_jsonl), ("parquet", write_parquet)])
def test_a_table_becomes_a_job_and_a_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ending: str, write: Callable[[Path, Rows], None]
) -> None:
    write(tmp_path / f"my comments.{ending}", rows())
    assert sparsemill.main(["init", str(tmp_path / f"my comments.{ending}"), "--out", str(tmp_path / "out")]) == 0
    job, study = load_job(str(tmp_path / "out/job.yaml")), load_study(str(tmp_path / "out/study.yaml"))
    assert job.corpus.path == (str(tmp_path / f"my comments.{ending}"),)
    assert (job.corpus.text, job.corpus.id) == ("body", "comment_id")
    assert job.corpus.keep == ("body", "toxic", "author", "lang", "split")
    assert (study.label, study.by, study.store) == ("toxic", ("lang",), job.store)
    assert study.split.group == "author"
    assert study.split.column is not None and study.split.column.name == "split"
    page = capsys.readouterr().out
    for said in (
        "body: by its name and",
        "comment_id: by its name, and no two rows",
        "looked at 120 rows",
        "sparsemill run",
    ):
        assert said in page


def test_a_job_written_through_a_link_finds_its_corpus(tmp_path: Path) -> None:
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep")
    write_csv(tmp_path / "c.csv", rows())
    assert sparsemill.main(["init", str(tmp_path / "c.csv"), "--out", str(tmp_path / "link")]) == 0
    assert load_job(str(tmp_path / "link" / "job.yaml")).corpus.path == (str(tmp_path / "c.csv"),)


def test_nothing_that_is_there_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_csv(tmp_path / "c.csv", rows())
    (tmp_path / "study.yaml").write_text("mine")
    assert sparsemill.main(["init", str(tmp_path / "c.csv"), "--out", str(tmp_path)]) == 2
    assert "study.yaml is there already and stays; say --out DIR" in capsys.readouterr().err
    assert (tmp_path / "study.yaml").read_text() == "mine" and not (tmp_path / "job.yaml").exists()


def test_what_is_said_is_not_guessed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "c.jsonl", rows())
    argv = ["init", str(tmp_path / "c.jsonl"), "--out", str(tmp_path), "--label", "lang", "--group", "toxic", "--json"]
    assert sparsemill.main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["label"] == {"column": "lang", "why": "as you said"} and found["group"]["column"] == "toxic"
    assert load_study(str(tmp_path / "study.yaml")).label == "lang"


def test_the_classes_of_a_column_that_was_named_are_counted_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(tmp_path / "c.csv", [{**row, "kind": ("a", "b", "b")[n % 3]} for n, row in enumerate(rows())])
    assert sparsemill.main(["init", str(tmp_path / "c.csv"), "--out", str(tmp_path), "--label", "kind"]) == 0
    page = capsys.readouterr().out
    assert "label      kind: as you said: 2 classes, 'b' (80), 'a' (40)\n" in page
    assert f"wrote {tmp_path / 'job.yaml'} and {tmp_path / 'study.yaml'}; read them, then:" in page


def test_without_labels_there_is_a_job_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "c.jsonl", [{"text": f"some words of {n}"} for n in range(30)])
    assert sparsemill.main(["init", str(tmp_path / "c.jsonl"), "--out", str(tmp_path)]) == 0
    page = capsys.readouterr().out
    assert "no column looks like classes" in page
    assert f"wrote {tmp_path / 'job.yaml'}; read it, then:" in page
    assert load_job(str(tmp_path / "job.yaml")).corpus.id is None
    assert not (tmp_path / "study.yaml").exists()


def test_several_files_are_one_corpus_and_strange_names_stay_themselves(tmp_path: Path) -> None:
    for name in ("a[1].csv", "b*.csv"):
        write_csv(tmp_path / name, rows(40))
    argv = ["init", str(tmp_path / "a[1].csv"), str(tmp_path / "b*.csv"), "--out", str(tmp_path / "o")]
    assert sparsemill.main(argv) == 0
    from featurestore.finding.files import find_files

    found = find_files(list(load_job(str(tmp_path / "o/job.yaml")).corpus.path), None)
    assert [Path(file.uri).name for file in found] == ["a[1].csv", "b*.csv"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not one row can be read"),
        ("a,b\n1,2\n3,4\n", "no column looks like texts, conversations or images (columns: a, b); say --text COLUMN"),
        ("a,b\n1,2\n3,4\n", "--text: "),
    ],
)
def test_what_cannot_be_begun_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, words: str
) -> None:
    (tmp_path / "c.csv").write_text(content)
    said = ["--text", "c"] if words == "--text: " else []
    assert sparsemill.main(["init", str(tmp_path / "c.csv"), "--out", str(tmp_path / "o"), *said]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sparsemill.main(["init", str(tmp_path / "none.csv"), "--out", str(tmp_path)]) == 2
    assert "none.csv: there is no such file" in capsys.readouterr().err


def test_measurements_and_free_texts_are_no_classes() -> None:
    columns = {
        "text": [f"a text of some words {n}" for n in range(60)],
        "score": [n / 7 for n in range(60)],
        "title": [f"title {n}" for n in range(60)],
        "rating": [n % 5 for n in range(60)],
    }
    roles = guess_roles(columns)
    assert roles.label is not None and roles.label.column == "rating"
    assert roles.text is not None and roles.text.column == "text"


def test_hostile_names_and_values_stay_in_their_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "text: [x]\n#"
    table = [{name: f"words and words {n} \x1b[31m", "label": ("a: b", "#c")[n % 2]} for n in range(20)]
    write_jsonl(tmp_path / "c.jsonl", table)
    assert sparsemill.main(["init", str(tmp_path / "c.jsonl"), "--out", str(tmp_path / "o")]) == 0
    assert "\x1b" not in capsys.readouterr().out
    written = yaml.safe_load((tmp_path / "o/job.yaml").read_text(encoding="utf-8"))
    assert written["corpus"]["text"] == name


def test_a_folder_of_images_gets_a_job_of_images_with_their_folders_as_labels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cats/1.png", "cats/2.jpg", "dogs/3.webp"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    assert sparsemill.main(["init", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "3 image files" in said
    assert "cats (2), dogs (1)" in said
    job, study = load_job(tmp_path / "out" / "job.yaml"), load_study(tmp_path / "out" / "study.yaml")
    assert (job.corpus.format, job.corpus.image, job.corpus.text) == ("images", "image", None)
    assert job.corpus.path == (str(tmp_path / "photos"),)
    assert (job.corpus.keep, job.model.tokens, job.pixels) == (("label",), "image", 8)
    assert job.saes[0].allow_mismatch
    assert (study.label, study.baselines) == ("label", ("pixels", "hidden_mean"))
    assert sparsemill.main(["init", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]) == 2
    again = ["init", str(tmp_path / "photos" / "cats"), "--out", str(tmp_path / "one"), "--json"]
    capsys.readouterr()
    assert sparsemill.main(again) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == {"cats": 2}
    assert not (tmp_path / "one" / "study.yaml").exists()


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("img", [{"bytes": PNG, "path": None}] * 40, "encoded images"),
        ("raw", [PNG] * 40, "encoded images"),
        ("file_name", [f"faces/{number}.JPG" for number in range(40)], "paths of images"),
    ],
)
def test_a_table_of_images_becomes_a_job_of_images(tmp_path: Path, name: str, values: list[Any], why: str) -> None:
    table = pl.DataFrame({name: values, "fine_label": [number % 2 for number in range(40)]})
    table.write_parquet(tmp_path / "images.parquet")
    assert sparsemill.main(["init", str(tmp_path / "images.parquet"), "--out", str(tmp_path)]) == 0
    text = (tmp_path / "job.yaml").read_text()
    assert f"image: {name}  # {why}" in text
    job = load_job(tmp_path / "job.yaml")
    assert (job.corpus.image, job.corpus.text, job.corpus.keep, job.pixels) == (name, None, ("fine_label",), 8)
    assert load_study(tmp_path / "study.yaml").baselines == ("pixels", "hidden_mean")


def test_a_text_beside_an_image_is_what_is_read(tmp_path: Path) -> None:
    captions = [f"a caption about number {number}" for number in range(40)]
    roles = guess_roles({"image": [PNG] * 40, "caption": captions})
    assert roles.text is not None and (roles.text.column, roles.reads) == ("caption", "text")
    assert roles.others == ("image",)


def test_a_table_of_conversations_becomes_a_job_of_conversations(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hello there"}, {"role": "assistant", "content": "hello"}]
    table = [{"conversation": turns, "model": "some model of ours", "label": "ab"[number % 2]} for number in range(40)]
    write_jsonl(tmp_path / "chats.jsonl", table)
    assert sparsemill.main(["init", str(tmp_path / "chats.jsonl"), "--out", str(tmp_path)]) == 0
    job = load_job(tmp_path / "job.yaml")
    assert job.corpus.messages == "conversation" and job.model.chat
    assert "conversation" in job.corpus.keep
    assert load_study(tmp_path / "study.yaml").label == "label"


def test_short_values_that_rows_share_are_kept_for_later_questions() -> None:
    texts = [f"a text about number {number}" for number in range(40)]
    roles = guess_roles(
        {
            "text": texts,
            "kind": ["a", "b"] * 20,
            "country": ["Chile", "Peru", "Spain", "Cuba"] * 10,
            "score": [number / 7 for number in range(40)],
            "url": [f"https://example.org/{number}" for number in range(40)],
            "language": ["spanish", "english"] * 20,
        }
    )
    assert roles.language is not None and roles.language.column == "language"
    assert roles.kept == ("country",)
    assert roles.others == ("score", "url")


def test_a_column_with_an_infinite_number_is_a_measurement(tmp_path: Path) -> None:
    table = [{**row, "score": float("inf") if number == 5 else 1.0} for number, row in enumerate(rows())]
    write_jsonl(tmp_path / "c.jsonl", table)
    assert sparsemill.main(["init", str(tmp_path / "c.jsonl"), "--out", str(tmp_path / "out")]) == 0
    assert load_study(tmp_path / "out" / "study.yaml").label == "toxic"
