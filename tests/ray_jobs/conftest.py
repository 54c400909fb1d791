"""A tiny Gemma 2 with three SAEs of two kinds on two layers, as a checkpoint, a reference and prepared bundles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ray_jobs.backbone.bundle import Bundle, open_bundle
from ray_jobs.prepare.build import prepare
from ray_jobs.spec import job_from_mapping
from tests.reference import ReferenceModel
from tests.tiny import tiny_gemma2, tiny_sae

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gemma2(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def answering(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an output matrix of its own: its answers are numbers although a row of its embedding is not."""
    return tiny_gemma2(tmp_path_factory.mktemp("answering"), tied=False, name="tiny-answering")


@pytest.fixture(scope="session")
def tiny_saes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, int]]:
    """SAE name -> directory, layer."""
    root = tmp_path_factory.mktemp("saes")
    return {
        "relu1": (tiny_sae(root / "relu1", layer=1, architecture="standard", apply_b_dec_to_input=True, seed=1), 1),
        "jump2": (tiny_sae(root / "jump2", layer=2, seed=2), 2),
        "wide2": (tiny_sae(root / "wide2", layer=2, d_sae=200, apply_b_dec_to_input=True, seed=3), 2),
    }


@pytest.fixture(scope="session")
def make_bundle(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_saes: dict[str, tuple[Path, int]]
) -> Callable[..., Bundle]:
    """Prepare a bundle of the tiny model: make_bundle(dtype=..., saes=[names])."""
    cache = tmp_path_factory.mktemp("bundles")

    def make(dtype: str = "float32", saes: tuple[str, ...] = ("relu1", "jump2", "wide2")) -> Bundle:
        job = job_from_mapping(
            {
                "corpus": {"path": "unused.jsonl"},
                "model": {"name": str(tiny_model), "dtype": dtype},
                "saes": [{"path": str(tiny_saes[name][0]), "name": name} for name in saes],
                "store": "unused",
            },
            cache,
        )
        return open_bundle(prepare(job, cache_dir=cache))

    return make


@pytest.fixture(scope="session")
def bundle(make_bundle: Callable[..., Bundle]) -> Bundle:
    return make_bundle()


@pytest.fixture(scope="session")
def reference(tiny_model: Path) -> ReferenceModel:
    return ReferenceModel(tiny_model)
