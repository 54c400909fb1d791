"""What a STUDY.yaml may say, and the sentence for what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from featurestore.errors import StudyError
from training.spec import load_study, study_from_mapping

MINIMAL: dict[str, Any] = {"store": "s", "label": "label", "baselines": ["majority"]}


def test_the_example_of_the_design_is_read_and_its_paths_start_at_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "store: s3://bucket/reviews\n"
        "label: {path: labels.parquet, id: doc_id, column: label}\n"
        "features: [{sae: l12_16k, pool: [sum, max, mean], binarize: [null, 0.0, 1.0]}]\n"
        "baselines: [tfidf, hidden_mean, hidden_last]\n"
        "probes: [logistic_l2]\n"
        "split: {test: 0.2, folds: 5, seeds: 5, group: null}\n"
        "out: study/\n"
    )
    spec = load_study(path)
    assert spec.store == "s3://bucket/reviews"
    assert spec.out == str(tmp_path / "study")
    assert not isinstance(spec.label, str)
    assert spec.label.path == str(tmp_path / "labels.parquet")
    assert spec.features[0].binarize == (None, 0.0, 1.0)


def test_a_single_pooling_or_threshold_needs_no_list() -> None:
    spec = study_from_mapping({**MINIMAL, "features": [{"sae": "a", "pool": "sum", "binarize": 1}]}, ".")
    assert spec.features[0].pool == ("sum",)
    assert spec.features[0].binarize == (1.0,)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"featurs": []}, "did you mean 'features'"),
        ({"probes": ["forest"]}, "probe 'forest' is not available; use logistic_l2"),
        ({"probes": []}, "name at least one probe"),
        ({"baselines": ["bow"]}, "unknown baseline 'bow'; use tfidf, char_ngrams, hidden_mean, hidden_last, pixels"),
        ({"baselines": ["tfidf", "tfidf"]}, "baseline 'tfidf' is given twice"),
        ({"baselines": []}, "nothing to study"),
        ({"features": [{"sae": "a", "pool": ["avg"]}]}, "unknown pooling 'avg'; use max, sum, mean"),
        ({"features": [{"sae": "a", "binarize": [-1.0]}]}, "greater than or equal to 0"),
        ({"features": [{"sae": "a", "binarize": [0.0, 0.0]}]}, "threshold '0.0' is given twice"),
        ({"features": [{"sae": "a"}, {"sae": "a"}]}, "SAE 'a' with pooling 'max' is asked for twice"),
        ({"split": {"test": 0.9}}, "'split.test'"),
        ({"split": {"folds": 1}}, "'split.folds'"),
        ({"split": {"seed": 1}}, "did you mean 'seeds'"),
        ({"bootstrap": 3}, "'bootstrap'"),
        ({"operating_point": {"class": "a"}}, "it has no aim; give exactly one of precision, recall"),
        ({"operating_point": {"class": "a", "recall": 0.9, "precision": 0.9}}, "precision and recall are given; give"),
        ({"operating_point": {"recall": 0.9}}, "key 'operating_point.class' is missing; add it"),
        ({"operating_point": {"clas": "a", "recall": 0.9}}, "did you mean 'class'"),
        ({"operating_point": {"class": "a", "recall": 90}}, "it is a fraction, and 90 percent are 0.9"),
        ({"operating_point": {"class": "a", "recall": 0.9, "undecided": 0.7}}, "'operating_point.undecided'"),
        ({"operating_point": {"class": "a", "cost": {"false_positive": 0, "false_negative": 0}}}, "neither error"),
        ({"operating_point": {"class": "a", "cost": {"false_negative": -1}}}, "greater than or equal to 0"),
        ({"undecided": 0.1}, "it belongs under 'operating_point'"),
        ({"class_weight": "balance"}, "'class_weight': input should be 'balanced'"),
        ({"by": ["lang", "lang"]}, "slice 'lang' is given twice; remove one"),
        ({"regimes": {"train_sizes": [32, 64, 32]}}, "'regimes.train_sizes': size '32' is given twice; remove one"),
        ({"regimes": {"label_noise": [0.2, 0.20]}}, "share '0.2' is given twice; remove one"),
        ({"regimes": {"minority_share": [0.1, 0.1]}}, "share '0.1' is given twice; remove one"),
        ({"transfer": {"by": "lang", "train": ["en", "en"]}}, "value 'en' is given twice; remove one"),
        ({"transfer": {"by": "year", "train": [2020, "2020"]}}, "value '2020' is given twice; remove one"),
        ({"baselines": [{"hidden": ["mean", "mean"], "store": "b"}]}, "kind of hidden states 'mean' is given twice"),
        ({"baselines": [{"columns": ["m", "m"]}]}, "column 'm' is given twice; remove one"),
        ({"features": [{"sae": "a", "beside": ["m", "m"]}]}, "name of numbers 'm' is given twice; remove one"),
        ({"by": ["length", {"length": 3}]}, "slice 'length' is given twice; remove one"),
        ({"by": [{"length": [9, 3]}]}, "the ends of ranges must rise"),
        ({"by": [{"length": 1}]}, "greater than or equal to 2"),
        ({"by": [{"size": 3}]}, "unknown key 'by.0.size'"),
        ({"refit": "perhaps"}, "'refit' must be true or false"),
    ],
)
def test_a_wrong_spec_is_answered_in_one_sentence(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(StudyError) as caught:
        study_from_mapping({**MINIMAL, **change}, ".", where="study.yaml")
    message = str(caught.value)
    assert sentence in message
    assert message.startswith("study.yaml: ")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        (None, "study: 'label' has no value; write one behind the colon"),
        ({"path": "x.csv", "id": "i"}, "study: key 'label.column' is missing; add it"),
        (
            {"path": "x.csv", "id": "i", "colum": "c"},
            "study: unknown key 'label.colum'; did you mean 'column'? (valid: path, id, column, csv)",
        ),
    ],
)
def test_a_label_that_is_neither_column_nor_table_is_told_in_the_users_keys(label: Any, sentence: str) -> None:
    with pytest.raises(StudyError) as caught:
        study_from_mapping({**MINIMAL, "label": label}, ".")
    assert str(caught.value) == sentence
