"""`status`, `verify` and `show`: a page for people, one JSON document for machines, and exit codes."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from featurestore import cli
from featurestore.errors import StoreError, UsageError
from featurestore.reader import FeatureStore
from featurestore.writing.writer import create_store, write_part
from tests.featurestore.stores import SCHEMA, plan_of, random_rows, write_store

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> str:
    write_store(tmp_path / "store")
    return str(tmp_path / "store")


def run(name: str, *argv: str) -> int:
    """Parse and run one command as the front door does."""
    parser = argparse.ArgumentParser()
    getattr(cli, f"{name}_parser")(parser)
    parser.add_argument("--json", action="store_true")
    code: int = getattr(cli, name)(parser.parse_args(argv))
    return code


def run_json(capsys: pytest.CaptureFixture[str], name: str, *argv: str, code: int = 0) -> Any:
    assert run(name, *argv, "--json") == code
    return json.loads(capsys.readouterr().out)


def test_status_of_a_complete_store(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", store) == 0
    out = capsys.readouterr().out
    assert "complete" in out and "3 of 3" in out and "21 of 21, 2 with an error" in out


def test_status_of_a_store_being_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of([3, 4])
    create_store(str(tmp_path), plan)
    write_part(str(tmp_path), plan, 1, random_rows(SCHEMA, 4))
    now = run_json(capsys, "status", str(tmp_path))
    assert (now["units_done"], now["units"], now["rows_done"], now["rows"]) == (1, 2, 4, 7)
    assert now["complete"] is False and now["fingerprint"] == plan.fingerprint


def test_verify_of_a_sound_store(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", store) == 0
    assert "every promise of the format holds (3 parts, 21 documents" in capsys.readouterr().out
    assert run_json(capsys, "verify", store, "--quick")["ok"] is True


def test_verify_of_a_damaged_store_fails_and_says_where(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    (Path(store) / "parts/part-000001.parquet").unlink()
    assert run("verify", store) == 1
    assert "  parts/part-000001.parquet: is missing; rerun extract\n" in capsys.readouterr().out
    report = run_json(capsys, "verify", store, code=1)
    assert report["ok"] is False and len(report["problems"]) == 1


def test_verify_shows_a_page_and_counts_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_store(tmp_path, [1] * 40)
    for part in (tmp_path / "parts").iterdir():
        part.unlink()
    assert run("verify", str(tmp_path)) == 1
    out = capsys.readouterr().out
    assert "40 problems" in out and "and 20 more; --json lists them" in out


@pytest.mark.parametrize("name", ["status", "verify", "show"])
def test_a_directory_that_is_no_store_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="is not a feature store"):
        run(name, str(tmp_path))


def test_show_lists_columns_and_first_documents(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", store, "--top", "2") == 0
    out = capsys.readouterr().out
    assert "21 documents" in out and "SAE l12_64: 64 features; pooled by max, sum, count, last, top2" in out
    assert "u0-1" in out and "u0-2" not in out
    shown = run_json(capsys, "show", store, "--top", "2")
    assert [document["doc_id"] for document in shown["documents"]] == ["u0-0", "u0-1"]
    assert shown["schema"] == SCHEMA.to_json()


def test_show_a_document(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", store, "--doc", "u1-0", "--top", "3") == 0
    assert capsys.readouterr().out.startswith("u1-0  ")
    shown = run_json(capsys, "show", store, "--doc", "u1-0", "--sae", "l12_64")
    assert shown["metadata"]["doc_id"] == "u1-0" and list(shown["top"]) == ["l12_64"]


def test_show_a_feature(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    feature = str(FeatureStore.open(store).matrix("l12_64").X.indices[0])
    assert run("show", store, "--feature", feature, "--sae", "l12_64") == 0
    assert f"l12_64:{feature}: active in" in capsys.readouterr().out
    shown = run_json(capsys, "show", store, "--feature", feature, "--sae", "l12_64", "--pool", "sum", "--top", "1")
    assert shown["pool"] == "sum" and len(shown["top"]) == 1


def test_a_feature_may_be_named_with_its_sae(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    named = run_json(capsys, "show", store, "--feature", "l12_64:7", "--top", "2")
    assert named["sae"] == "l12_64" and named["feature"] == 7 and named["source"] == "new index"
    apart = run_json(capsys, "show", store, "--feature", "7", "--sae", "l12_64", "--top", "2")
    assert apart == named | {"source": "index"}
    assert run("show", store, "--feature", "l12_64:7", "--top", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"l12_64:7: active in {named['n_documents']} documents; max is ")
    assert [line.split()[1] for line in lines[1:]] == [document["doc_id"] for document in named["top"]]


def test_a_feature_named_with_another_sae_is_refused(store: str) -> None:
    with pytest.raises(UsageError, match="--feature names SAE 'l12_64' and --sae 'l9_8'; leave one of them out"):
        run("show", store, "--feature", "l12_64:7", "--sae", "l9_8")


@pytest.mark.parametrize("feature", [":7", "l12_64:", "l12_64:x", "7:l12_64", "-1", "²"])
def test_what_is_no_feature_is_a_usage_error(store: str, feature: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("show", store, f"--feature={feature}")
    assert caught.value.code == 2 and "must be a feature's number, or SAE:NUMBER" in capsys.readouterr().err


def test_who_waits_for_an_index_is_told(
    store: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_LONG_READ", 1)
    run_json(capsys, "show", store, "--feature", "l12_64:7")
    monkeypatch.setenv("SPARSEMILL_CACHE", f"{store}-other-cache")
    assert run("show", store, "--feature", "l12_64:7") == 0
    assert "kB once, to index this pooling" in capsys.readouterr().err
    assert run("show", store, "--feature", "l12_64:7") == 0
    assert capsys.readouterr().err == ""


def test_show_a_feature_of_one_of_several_saes_asks_which(store: str) -> None:
    with pytest.raises(StoreError, match="say which SAE"):
        run("show", store, "--feature", "3")


@pytest.mark.parametrize("argv", [["--top", "0"], ["--doc", "a", "--feature", "1"], ["--feature", "x"]])
def test_impossible_arguments_are_a_usage_error(store: str, argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run("show", store, *argv)
    assert caught.value.code == 2


def test_commands_can_be_parsed_without_loading_arrow_or_polars() -> None:
    code = (
        "import sys, featurestore, featurestore.errors, featurestore.cli;"
        "heavy = {'pyarrow', 'polars', 'numpy', 'scipy', 'pydantic', 'torch', 'ray'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_public_name_can_be_imported() -> None:
    code = "import featurestore; [getattr(featurestore, name) for name in featurestore.__all__]"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_one_of_a_thing_is_singular(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of([1])
    create_store(str(tmp_path), plan)
    write_part(str(tmp_path), plan, 0, random_rows(SCHEMA, 1))
    assert run("verify", str(tmp_path)) == 1
    page = capsys.readouterr().out
    assert "unfinished: 1 of 1 part is there, " in page and "(1 part, 1 document, " in page
    assert run("show", str(tmp_path)) == 0
    assert ": 1 document so far" in capsys.readouterr().out


def test_a_long_or_hostile_value_stays_on_its_line() -> None:
    shown = cli._metadata_line({"doc_id": "a", "text": "b\n\x1b[31m" + "c" * 500, "n_tokens": 3})
    assert shown.startswith("a  text=b\\n\\x1b[31mccc") and shown.endswith("ccc...  n_tokens=3")
    assert len(shown) < 200 and shown.isprintable()


def test_show_of_a_damaged_part_says_so(store: str) -> None:
    next(Path(store, "parts").iterdir()).write_bytes(b"PAR1 not parquet PAR1")
    with pytest.raises(StoreError, match=r"part \d cannot be read .*; if verify finds it damaged"):
        run("show", store)


def test_a_pooling_without_a_feature_is_refused(store: str) -> None:
    with pytest.raises(UsageError, match="--pool ranks the documents of a feature"):
        run("show", store, "--doc", "d0", "--pool", "max")
