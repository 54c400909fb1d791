"""Numbers about documents: what is none, or none that features can stand beside, leaves its document out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from featurestore.reader import FeatureStore
from tests.training.stores import SAE, build_store, make_documents
from training.documents.labels import load_documents
from training.documents.numbers import numbers_of
from training.methods.matrices import load_matrix
from training.methods.plan import plan_methods
from training.spec import NumbersBaseline, study_from_mapping


def test_numbers_that_float32_cannot_hold_are_none(tmp_path: Path) -> None:
    lines = ['{"id": "a", "n": 1e40}', '{"id": "b", "n": -1e39}', '{"id": "c", "n": 3.4e38}', '{"id": "d", "n": null}']
    (tmp_path / "t.jsonl").write_text("\n".join(lines), encoding="utf-8")
    found = numbers_of(
        NumbersBaseline(columns=("n",), path=str(tmp_path / "t.jsonl"), id="id"),
        {"doc_id": pl.Series(["a", "b", "c", "d"])},
        [],
    )
    assert np.isnan(found[:, 0]).tolist() == [True, True, False, True]


@pytest.mark.parametrize("digits", [39, 400])
def test_a_whole_number_of_many_digits_leaves_its_document_out(tmp_path: Path, digits: int) -> None:
    documents = make_documents(40)
    build_store(tmp_path / "store", documents)
    rows = [{"id": name, "perplexity": 10**digits if i == 3 else i} for i, name in enumerate(documents.ids)]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    numbers = {"columns": ["perplexity"], "path": "t.jsonl", "id": "id"}
    spec = study_from_mapping(
        {
            "store": "store",
            "label": "label",
            "features": [{"sae": SAE, "pool": ["max"], "beside": "perplexity"}],
            "baselines": [numbers],
            "out": "out",
        },
        tmp_path,
    )
    store = FeatureStore.open(str(tmp_path / "store"))
    data = load_documents(store, spec)
    assert data.left_out["no_number"] == 1 and "doc-3" not in data.doc_id
    (beside,) = (method for method in plan_methods(store, spec) if method.kind == "beside")
    assert np.isfinite(load_matrix(store, beside, data).X.data).all()
