"""Real images, handwritten digits and photographs, from a job on disk to a verdict, by commands that a user types."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

import sparsemill
from benchmarks.image_study import PHOTOGRAPHS, digits, photographs
from featurestore import FeatureStore
from tests.ray_jobs.jobs import job_mapping, write_job
from tests.tiny import tiny_sae
from tests.tiny_vision import tiny_vision
from training.spec import study_from_mapping
from training.study import run_study

pytestmark = pytest.mark.slow

Rows = Callable[[], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMILL_CACHE", str(directory / "cache"))
        patch.delenv("RAY_ADDRESS", raising=False)
        tiny_vision(directory, "paligemma2", spread=0.7)
        tiny_sae(directory / "sae", model_name=None, d_sae=256)
        yield directory


def some_digits() -> list[dict[str, Any]]:
    return list(digits())[::2]


def some_photographs() -> list[dict[str, Any]]:
    """Six photographs, all their tiles."""
    wanted = {name.partition(".")[0] for name in PHOTOGRAPHS[:6]}
    return [row for row in photographs() if row["label"] in wanted]


def extracted(models: Path, directory: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), directory / "c.parquet", row_group_size=200)
    mapping = job_mapping(
        models,
        directory / "c.parquet",
        directory / "store",
        corpus={"image": "image", "text": None, "keep": ["label", "group"]},
        model={"name": str(models / "tiny-paligemma2"), "tokens": "image"},
        pixels=8,
        units={"documents": 300},
    )
    assert sparsemill.main(["extract", str(write_job(directory / "job.yaml", mapping))]) == 0
    return directory / "store"


@pytest.mark.parametrize("rows", [some_digits, some_photographs])
def test_features_of_real_images_are_above_chance_beside_hidden_states_and_pixels(
    rows: Rows, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = rows()
    store = extracted(models, tmp_path, table)
    classes = len({row["label"] for row in table})
    study = {
        "store": str(store),
        "label": "label",
        "features": [{"sae": "tiny", "pool": ["sum", "max"]}],
        "baselines": ["pixels", "hidden_mean"],
        "split": {"test": 0.25, "folds": 3, "seeds": 1, "group": "group"},
        "out": str(tmp_path / "study"),
    }
    result = run_study(study_from_mapping(study, tmp_path))
    found = {summary.method: summary.macro_f1 for summary in result.summary}
    assert set(found) == {"majority", "pixels", "hidden_mean", "tiny:sum", "tiny:max"}
    for method in ("pixels", "hidden_mean", "tiny:sum"):
        assert found[method].low > 1 / classes, f"{method}: {found[method]} with {classes} classes"
    data, split = result.data, result.splits[0]
    assert data.group is not None
    assert not {*data.group[split.train]} & {*data.group[split.test]}
    opened = FeatureStore.open(str(store))
    assert opened.verify().ok
    assert np.isfinite(opened.dense("pixels")).all()


def test_commands_that_show_texts_say_that_there_are_none(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = some_digits()[:40]
    store = extracted(models, tmp_path, [{**row, "label": str(n % 2)} for n, row in enumerate(rows)])
    capsys.readouterr()
    assert sparsemill.main(["tokens", str(store), "--doc", rows[0]["id"]]) != 0
    said = capsys.readouterr().err
    assert "it is an image, and tokens can be shown of texts only" in said and "corpus.keep" not in said
    study = {
        "store": str(store),
        "label": "label",
        "features": [{"sae": "tiny", "pool": ["max"]}],
        "baselines": ["pixels"],
        "split": {"test": 0.25, "folds": 2, "seeds": 1},
        "out": str(tmp_path / "study"),
    }
    (tmp_path / "study.yaml").write_text(json.dumps(study), encoding="utf-8")
    assert sparsemill.main(["study", str(tmp_path / "study.yaml")]) == 0
    page = (tmp_path / "study" / "report.html").read_text(encoding="utf-8")
    assert "The examples are images" in page
    assert "keeps no text" not in page and "their evidence was not gathered" not in page
    said = [line for line in capsys.readouterr().err.splitlines() if "shows no tokens" in line]
    assert len(said) == 1 and said[0].endswith("more likewise)")
    texts = yaml.safe_load((tmp_path / "job.yaml").read_text(encoding="utf-8"))
    texts["corpus"].update(image=None, text="label")
    texts["model"].pop("tokens")
    texts.pop("pixels")
    assert sparsemill.main(["plan", str(write_job(tmp_path / "texts.yaml", {**texts, "store": "t"}))]) == 2
    assert "of texts only those are supported; of images (corpus.image) it can be run" in capsys.readouterr().err
    (tmp_path / "words.yaml").write_text(json.dumps({**study, "baselines": ["tfidf"], "out": "w"}), encoding="utf-8")
    assert sparsemill.main(["study", str(tmp_path / "words.yaml")]) == 2
    assert "are images; use pixels, or give the study" in capsys.readouterr().err
    model = str(tmp_path / "study" / "models" / "sae.json")
    (tmp_path / "new.csv").write_text("id,body\n1,a text\n", encoding="utf-8")
    for out in ([], ["--out", str(tmp_path / "parts")]):
        assert sparsemill.main(["predict", model, "--input", str(tmp_path / "new.csv"), *out]) == 2
        assert "trained on features of images" in capsys.readouterr().err
    assert sparsemill.main(["predict", model, "--text", "a text"]) == 2
    assert "trained on features of images" in capsys.readouterr().err
    assert sparsemill.main(["predict", model, "--store", str(store), "--out", str(tmp_path / "p.csv")]) == 0
    assert len((tmp_path / "p.csv").read_text(encoding="utf-8").splitlines()) == 41
    assert (
        sparsemill.main(["predict", model, "--job", str(tmp_path / "job.yaml"), "--out", str(tmp_path / "q.csv")]) == 0
    )
    assert (tmp_path / "q.csv").read_text(encoding="utf-8") == (tmp_path / "p.csv").read_text(encoding="utf-8")
