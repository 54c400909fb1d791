"""Which features a model reads, in the SAEs that they are of; what is no model is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from featurestore.errors import StudyError
from featurestore.models.model import load_model
from tests.featurestore.models.handmade import linear_model, tree_model


def test_columns_of_several_saes_are_told_apart() -> None:
    names, sae, feature = linear_model([1, 9, 10, 29], np.ones((1, 4)), {"one": 10, "two": 20}).places()
    assert names == ["one", "two"]
    assert sae.tolist() == [0, 0, 1, 1]
    assert feature.tolist() == [1, 9, 0, 19]


def test_only_features_that_can_move_a_score_are_used() -> None:
    model = linear_model([1, 4, 9, 12], np.array([[0.0, 1.0, -2.0, 0.0]]), {"one": 10, "two": 20})
    assert {name: features.tolist() for name, features in model.used().items()} == {"one": [4, 9], "two": []}
    assert tree_model({"one": 10}).used()["one"].tolist() == [3, 5]


def test_a_mean_is_read_as_a_sum() -> None:
    assert linear_model([1], np.ones((1, 1)), {"one": 10}, pool="mean").stored_pool == "sum"
    assert linear_model([1], np.ones((1, 1)), {"one": 10}).stored_pool == "max"


def test_a_header_with_a_number_that_nobody_can_calculate_with_is_refused(tmp_path: Path) -> None:
    header = {**linear_model([0], np.array([[1.0]]), {"one": 10}).header, "documents": "number"}
    (tmp_path / "m.safetensors").write_bytes(b"")
    for number in ("9" * 400, "1e999", "-Infinity"):
        (tmp_path / "m.json").write_text(json.dumps(header).replace('"number"', number))
        with pytest.raises(StudyError, match=r"m: cannot be read as a model \(it holds .*; train it again"):
            load_model(tmp_path / "m.json")
