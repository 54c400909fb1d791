"""The walk of sae-lens' registry: every SAE through the loader up to its weights, held against what `saes` says."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks import registry
from benchmarks.registry import sample, walk
from ray_jobs.prepare.registry import entries


def test_one_sae_of_each_release_goes_through_the_loader_as_saes_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.main(["--sample", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["saes"] == figures["releases"] == len({entry.release for entry in entries()})
    assert figures["differences"] == []
    assert list(figures["refused"].values()) == [2]  # temporal
    assert 0 < figures["assumed"] < figures["saes"] / 3
    assert registry.shown(figures).splitlines()[0].startswith(f"{figures['saes']} SAEs in {figures['saes']} releases: ")


def test_weights_that_are_pickled_are_refused_where_the_job_does_not_allow_them() -> None:
    (found,) = walk([entry for entry in sample(1) if entry.release == "qwen-scope-3-8b-base-w64k-l50"])
    assert found.weights == "layer0.sae.pt" and found.differs() == []
    mistaken = replace(found.predicted, needs=None)
    assert replace(found, predicted=mistaken).differs() == ["needs"]


def test_a_wrong_prediction_would_be_found() -> None:
    (found,) = walk([entry for entry in sample(1) if entry.release == "gemma-scope-2b-pt-res-canonical"])
    wrong = replace(found.predicted, accepted=False, model="google/gemma-2-9b", site="mlp_in", layer=3, d_sae=7)
    assert replace(found, predicted=wrong).differs() == ["verdict", "model", "site", "layer", "d_sae"]


@pytest.mark.slow  # half a minute
def test_all_of_the_registry_goes_through_the_loader_as_saes_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert registry.main(["--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["saes"] == len(entries()) and figures["differences"] == []
    assert figures["accepted"] / figures["saes"] >= 0.99
