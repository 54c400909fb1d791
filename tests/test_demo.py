"""The embedded default: the shipped SAE is what its card says, and `sparsemill demo` goes the whole way."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import sparsemill
from tests.reference import ReferenceModel

pytestmark = pytest.mark.real
ROOT = Path(__file__).parent.parent


def test_the_shipped_sae_is_small_bfloat16_and_says_what_it_belongs_to(demo_sae_dir: Path) -> None:
    from safetensors import safe_open

    cfg = json.loads((demo_sae_dir / "cfg.json").read_text())
    assert cfg["architecture"] == "jumprelu"
    assert cfg["d_sae"] >= 4096
    assert cfg["metadata"]["model_name"] == "google/gemma-3-270m"
    assert cfg["metadata"]["hook_name"] == "blocks.9.hook_resid_post"
    with safe_open(demo_sae_dir / "sae_weights.safetensors", "np") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118
    assert sum(file.stat().st_size for file in demo_sae_dir.iterdir()) <= 12_000_000


@pytest.mark.slow
def test_the_shipped_sae_reconstructs_text_that_it_never_saw(demo_sae_dir: Path, real_model_dir: Path) -> None:
    """The demo's own corpus: another register than the training text, so the bounds are wider than the card's."""
    import torch
    from bastioncorpus import load_corpus
    from sae_lens import SAE

    reference = ReferenceModel(real_model_dir)
    texts = [row.text for row in load_corpus()][::3]
    x_ND = torch.from_numpy(np.concatenate([reference.residual(reference.windows(text), 9) for text in texts]))
    sae = SAE.load_from_disk(str(demo_sae_dir), device="cpu", dtype="float32")
    with torch.no_grad():
        features_NF = sae.encode(x_ND)
        rest_ND = x_ND - sae.decode(features_NF)
    explained = 1 - (rest_ND.pow(2).sum() / (x_ND - x_ND.mean(0)).pow(2).sum()).item()
    l0 = (features_NF > 0).sum(1).double().mean().item()
    print(f"variance explained {explained:.4f}, L0 {l0:.1f}, {len(x_ND)} tokens")
    assert explained >= 0.92
    assert l0 <= 70


@pytest.mark.slow
def test_the_demo_runs_and_a_second_time_does_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    assert sparsemill.main(["demo", "--out", str(tmp_path / "demo")]) == 0
    page = capsys.readouterr().out
    for method in ("majority", "tfidf", "hidden_mean", "hidden_last", "l9_4k:max"):
        assert f" {method} " in page
    assert page.count("-> benign") == page.count("-> malicious") == 5
    assert (tmp_path / "demo" / "study" / "report.html").is_file()
    assert str(tmp_path / "demo" / "store") in page
    assert sparsemill.main(["demo", "--out", str(tmp_path / "demo"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["extract"]["units_run"] == 0
    assert again["extract"]["documents"] == 181
    assert again["extract"]["errors"] == 0
    assert again["verify"]["ok"]
    if again["prepare"]["dtype"] == "float32":  # in bfloat16 scores differ by some thousandths
        shown = re.findall(r"^```\n(   method .*?)^```", (ROOT / "docs" / "demo.md").read_text("utf-8"), re.S | re.M)
        printed = page.splitlines()
        assert [line for line in shown[0].splitlines() if line not in printed] == ["...", "...", "..."]
