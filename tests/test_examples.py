"""The presets under examples/ are valid: they parse, and the SAEs they name are in sae-lens' registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from ray_jobs.spec import load_job
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


@pytest.mark.parametrize("name", ["study", "paper-reproduction", "paper-corrected"])
def test_study_preset_parses(name: str) -> None:
    assert load_study(EXAMPLES / f"{name}.yaml").features
