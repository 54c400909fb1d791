"""`names`: pages for people, JSON for machines, one sentence for what is wrong; the first stage is a stand-in here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import sparsemill
from featurestore.errors import BundleError
from featurestore.evidence.records import DocumentEvidence
from featurestore.names import cli
from featurestore.reader import FeatureStore
from featurestore.writing.writer import create_store, finish_store, write_part
from sparsemill import commands
from tests.featurestore.names.evidence import evidence
from tests.featurestore.names.test_importing import export_line, write
from tests.featurestore.stores import SCHEMA, plan_of, random_rows

SHA = "c3" * 32
SOURCE = "gemma-2-2b/12-gemmascope-res-16k"


class StageOne:
    """A stand-in: the feature fires on the word that its number names; the registry knows one SAE."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Sequence[tuple[str, int]]]] = []

    def evidence(
        self, store: FeatureStore, wanted: Mapping[str, Sequence[tuple[str, int]]]
    ) -> Iterator[DocumentEvidence]:
        self.asked.append(wanted)
        for at, (doc_id, pairs) in enumerate(wanted.items()):
            made = evidence(
                doc_id, ["The", " word5", " of", f" {doc_id}"], {n: [1] if n == 5 else [] for _, n in pairs}
            )
            marked = [type(one)("l12_64", one.feature, one.values, one.max, one.sum) for one in made.features]
            yield DocumentEvidence(doc_id, made.tokens, tuple(marked), None if at else "it differs")

    def generator(self, model: str) -> tuple[str, Callable[[Sequence[str]], Iterator[str]]]:
        if model != "here":
            raise BundleError(f"{model}: there is no such model; give one that is here")
        return "small-it", lambda prompts: (f" things {len(prompt) > 0}\nmore" for prompt in prompts)

    def neuronpedia_id(self, release: str, id: str) -> str | None:
        return SOURCE if (release, id) == ("scope", "12") else None


@pytest.fixture
def stage_one(monkeypatch: pytest.MonkeyPatch) -> StageOne:
    stand_in = StageOne()
    monkeypatch.setattr(commands, "StageOne", lambda: stand_in)
    return stand_in


@pytest.fixture
def store(tmp_path: Path, stage_one: StageOne) -> str:
    root = str(tmp_path / "store")
    saes = {
        "l12_64": {"sha256": SHA, "hook": "resid_post of layer 12"},
        "l9_8": {"hook": "resid_post of layer 9"},  # an earlier version did not say more
    }
    plan = plan_of([40], model={"name": "google/gemma-2-2b"}, saes=saes)
    plan.spec["saes"] = [{"name": "l12_64", "release": "scope", "id": "12"}]
    create_store(root, plan)
    finish_store(root, [write_part(root, plan, 0, random_rows(SCHEMA, 40))])
    return root


def run_json(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> Any:
    assert sparsemill.main(["names", *argv, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_an_export_is_imported_for_an_sae_of_a_store_and_listed(
    store: str, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [export_line(1, "dogs\u202e"), export_line(2, "cats"), export_line(1, "canines", explanationModelName="o3")]
    batch = write(tmp_path / "batch-0.jsonl.gz", lines)
    assert sparsemill.main(["names", "import", batch, "--store", store, "--sae", "l12_64", "--prefer", "o3"]) == 0
    out = capsys.readouterr().out
    assert "3 names imported" in out and "2 of 64 features (3.1%) have a name now, 3 names in all" in out
    assert sparsemill.main(["names", "list", store, "--sae", "l12_64"]) == 0
    out = capsys.readouterr().out
    assert "2 of 64 features have a name" in out and str(cache / "names" / f"{SHA}.parquet") in out
    assert "  imported  2 names by gpt-4o-mini oai_token-act-pair\n" in out
    assert "1  canines [imported, o3]\n" in out and "2  cats [imported, gpt-4o-mini]\n" in out
    which = ["--sha256", SHA.upper(), "--width", "64", "--prefer", "gpt-4o-mini"]
    listed = run_json(capsys, "list", *which, "--feature", "2", "--feature", "1")
    assert [(row["feature"], row["text"]) for row in listed["rows"]] == [(2, "cats"), (1, "dogs\u202e"), (1, "canines")]
    assert (listed["names"], listed["features"], listed["prefer"], listed["version"]) == (3, 2, ["o3"], 1)


def test_tables_can_lie_elsewhere(store: str, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tmp_path / "own.csv"
    own.write_text("feature,name\n7,dogs\n")
    argv = ["--sha256", SHA, "--width", "64", "--names", str(tmp_path / "mine")]
    done = run_json(capsys, "import", str(own), *argv, "--explainer", "me", "--licence", "CC0")
    assert done["path"] == str(tmp_path / "mine" / f"{SHA}.parquet") and done["added"] == 1 and done["notes"] == []
    (row,) = run_json(capsys, "list", *argv)["rows"]
    assert (row["text"], row["explainer"], row["source"]) == ("dogs", "me", "imported")
    assert not (cache / "names").exists()


def test_keywords_are_made_from_strongest_and_random_documents_and_kept(
    store: str, stage_one: StageOne, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        sparsemill.main(
            ["names", "keywords", store, "--feature", "l12_64:5", "--feature", "l12_64:6", "--feature", "l12_64:5"]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "l12_64:5  word5 [evidence, keywords]\n" in out and "l12_64:6  no word distinguishes the" in out
    assert "note: 1 document: it differs" in out
    (wanted,) = stage_one.asked
    fires = FeatureStore.open(store).matrix("l12_64", features=[5, 6])
    for doc_id, values in zip(fires.doc_id, fires.X.toarray(), strict=True):
        told = {feature for _, feature in wanted.get(doc_id, ())}
        assert {feature for feature, value in zip((5, 6), values, strict=True) if value} <= told
    (row,) = run_json(capsys, "list", store, "--sae", "l12_64", "--feature", "5")["rows"]
    assert (row["text"], row["source"], row["explainer"]) == ("word5", "evidence", "keywords")
    assert row["origin"].startswith(store)
    found = run_json(capsys, "keywords", store, "--sae", "l12_64", "--feature", "5")["features"][0]
    assert found["keywords"][0]["word"] == "word5" and found["keywords"][0]["marked"] == len(stage_one.asked[1])


def test_a_text_generator_names_features_that_fire(store: str, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["names", "generate", store, "--model", "here", "--feature", "l12_64:5", "--feature", "l12_64:6"]
    assert sparsemill.main(argv) == 0
    out = capsys.readouterr().out
    assert "l12_64:5  things True [generated, small-it]\n" in out
    assert "l12_64:6  small-it says nothing of the" in out  # its evidence has no token that fires
    assert sparsemill.main(["names", "keywords", store, "--feature", "l12_64:5"]) == 0
    capsys.readouterr()
    rows = run_json(capsys, "list", store, "--feature", "l12_64:5")["rows"]
    assert [(row["source"], row["text"]) for row in rows] == [("generated", "things True"), ("evidence", "word5")]


def test_what_the_registry_says_is_compared_with_an_export(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = write(tmp_path / "b.jsonl", [export_line(1, "dogs", layer="12-gemmascope-att-16k")])
    assert sparsemill.main(["names", "import", batch, "--store", store, "--sae", "l12_64"]) == 2
    assert "these are names of gemma-2-2b/12-gemmascope-att-16k" in capsys.readouterr().err


def test_an_import_goes_on_without_sae_lens(
    store: str, stage_one: StageOne, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(release: str, id: str) -> str | None:
        raise ModuleNotFoundError("No module named 'sae_lens'", name="sae_lens")

    monkeypatch.setattr(stage_one, "neuronpedia_id", missing)
    batch = write(tmp_path / "b.jsonl", [export_line(1, "dogs")])
    assert sparsemill.main(["names", "import", batch, "--store", store, "--sae", "l12_64"]) == 0
    assert sparsemill.main(["names", "fetch", "--store", store, "--sae", "l12_64"]) == 1


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["list"], "say which SAE by a store or by --sha256 and --width"),
        (["list", "{store}", "--sha256", SHA], "one of them"),
        (["list", "--sha256", SHA], "needs the SAE's --width"),
        (["list", "--sha256", "abc", "--width", "4"], "is no sha256 of an encoder"),
        (["list", "{store}"], "say which SAE of"),
        (["list", "{store}", "--sae", "l9_8"], "does not record the sha256 of SAE 'l9_8'"),
        (["list", "{store}", "--sae", "l12_64", "--width", "64"], "a store knows its own"),
        (["list", "{store}", "--sae", "l12_64", "--prefer", "gpt"], "no name is by 'gpt' (explainers: none)"),
        (["list", "{store}", "--sae", "l12_64", "--feature", "64"], "has features 0 to 63"),
        (["keywords", "{store}", "--sae", "l12_64", "--feature", "99"], "has features 0 to 63"),
        (["import", "{store}/nothing.csv", "--store", "{store}", "--sae", "l12_64"], "there is no such file"),
        (
            ["import", "{own}", "--store", "{store}", "--sae", "l12_64", "--prefer", "gtp"],
            "no name is by 'gtp'; did you mean 'gpt'?",
        ),
        (["keywords", "{store}", "--sae", "l12_64", "--feature", "l9_8:1"], "name one SAE at a time"),
        (["generate", "{store}", "--feature", "l12_64:1", "--model", "gone"], "there is no such model"),
        (["fetch", "--sha256", SHA, "--width", "64"], "give --id MODEL/SOURCE"),
        (["fetch", "--sha256", SHA, "--width", "64", "--id", "x"], "'x' is no id of an SAE"),
    ],
)
def test_bad_input_is_one_sentence(
    argv: list[str], says: str, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.csv"
    own.write_text("feature,name,explainer\n7,dogs,gpt\n")
    assert sparsemill.main(["names", *(word.format(store=store, own=own) for word in argv)]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1


def test_a_misspelt_action_or_option_is_a_json_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["names", "--json"], ["names", "lst", "--json"], ["names", "list", "--featur-e", "--json"]):
        with pytest.raises(SystemExit) as stop:
            sparsemill.main(argv)
        assert stop.value.code == 2 and json.loads(capsys.readouterr().out)["exit_code"] == 2


def test_every_action_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        sparsemill.main(["names", "--help"])
    out = capsys.readouterr().out
    assert all(f"    {action} " in out and f"sparsemill names {action} " in out for action in cli._ACTIONS)
