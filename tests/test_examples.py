"""The presets under examples/ are valid: they parse, and the SAEs they name are in sae-lens' registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ray_jobs.spec import job_from_mapping, load_job
from tests.tiny import tiny_sae
from tests.tiny_vision import png, tiny_images, tiny_vision
from training.spec import load_study

EXAMPLES = Path(__file__).parent.parent / "examples"
JOBS = sorted(p for p in EXAMPLES.glob("*.yaml") if not p.stem.startswith(("study", "paper")))


@pytest.mark.parametrize("path", JOBS, ids=lambda p: p.stem)
def test_job_preset_names_saes_that_sae_lens_knows(path: Path) -> None:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    registry = get_pretrained_saes_directory()
    job = load_job(path)
    assert job.saes
    for sae in job.saes:
        assert sae.release in registry, f"{sae.release} is no release of sae-lens"
        assert sae.id in registry[sae.release].saes_map, f"{sae.release} has no SAE {sae.id}"


@pytest.mark.parametrize("name", ["study", "study-images", "paper-reproduction", "paper-corrected"])
def test_study_preset_parses(name: str) -> None:
    assert load_study(EXAMPLES / f"{name}.yaml").features


COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "paligemma2-cifar100": {"img": (), "fine_label": ("apple", "bear"), "coarse_label": ("fruit", "animal")},
    "paligemma2-indian-food": {"image": (), "label": ("chai", "idli")},
    "paligemma2-oxford-flowers": {"image": (), "label": ("1", "10")},
}
"""Columns of these data sets as the hub's files have them: images, and classes with some of their names."""


@pytest.mark.slow
@pytest.mark.parametrize("name", COLUMNS)
def test_image_preset_is_planned_on_a_table_with_the_columns_of_its_data_set(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tiny model in the place of PaliGemma 2: neither weights nor a hub are needed to see that a job fits."""
    import datasets

    from ray_jobs.backbone.bundle import WEIGHTS_NAME, tensor_header
    from ray_jobs.planning.estimate import estimate
    from ray_jobs.planning.job_plan import make_plan
    from ray_jobs.planning.memory import memory_of
    from ray_jobs.planning.warnings import notes_of

    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    columns, pictures = COLUMNS[name], tiny_images(40)
    features = {
        column: datasets.ClassLabel(names=list(names)) if names else datasets.Image()
        for column, names in columns.items()
    }
    rows: dict[str, list[Any]] = {
        column: [n % 2 if names else {"bytes": png(picture), "path": None} for n, picture in enumerate(pictures)]
        for column, names in columns.items()
    }
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(features))
    table.to_parquet(str(tmp_path / "train.parquet"))
    job = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"))
    job["corpus"]["path"] = str(tmp_path / "train.parquet")
    job["model"]["name"] = str(tiny_vision(tmp_path, "paligemma2"))
    job["saes"] = [
        {"path": str(tiny_sae(tmp_path / f"sae{n}", layer=n)), "name": f"l{n}", "allow_mismatch": True}
        for n in range(3)
    ]
    plan = make_plan(job_from_mapping(job, tmp_path))
    assert plan.scan.rows == 40
    assert plan.mean_tokens == 16
    assert plan.store.schema.keep == tuple((column, "string") for column, names in columns.items() if names)
    assert any("the names that the files have" in note for note in notes_of(plan))
    figures = estimate(plan, rate=100.0)
    assert figures.worker_hours is not None
    (memory,) = memory_of(plan, figures).devices
    tensors = {key: n for key, (_, n) in tensor_header(plan.bundle.path / WEIGHTS_NAME).items()}
    read = sum(n for key, n in tensors.items() if "embed_tokens" not in key)  # the tower, but no table of tokens
    assert memory.weights == read < sum(tensors.values())
