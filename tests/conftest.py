"""What tests of several packages share: a browser, and the real model and SAE of the demo, prepared once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from docs.tooling.outputs import problem_of
from featurestore.base import json_text
from tests.browser import axe, browser, opened

settings.register_profile("sparsemill", deadline=None)  # a loaded machine is slow, and no test is about time
settings.load_profile("sparsemill")

__all__ = ["axe", "browser", "opened"]  # one browser a session, whoever asks for it

# Folders and files whose tests start a Ray of their own.
STARTS_RAY = frozenset(
    [
        "crash", "cluster", "test_driver.py", "test_stop.py", "test_demand.py", "test_prometheus.py", "test_hub.py",
        "test_cli.py", "test_calibrate.py", "test_bad_input.py", "test_demo.py", "test_predict_new_text.py",
        "test_releases.py", "test_secret_urls.py", "test_json_text.py", "test_benchmarks.py", "test_image_study.py",
        "test_python_front.py", "test_notebooks.py", "test_hours.py",
    ]
)  # fmt: skip


@pytest.fixture(autouse=True)
def documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a command prints with --json in this process has a shape that docs/reference/json.md says."""
    as_text: Callable[..., str] = json_text.json_text

    def spied(document: object, *options: Any, **more: Any) -> str:
        of_a_file = isinstance(document, dict) and str(document.get("format")).startswith("sparsemill.")
        if isinstance(document, dict) and "version" in document and not of_a_file:
            whole = {"predictions": [], **document} if "trained_on" in document else document  # they follow one by one
            assert (problem := problem_of(whole)) is None, problem
        return as_text(document, *options, **more)

    monkeypatch.setattr(json_text, "json_text", spied)  # where `print_json` finds it


@pytest.fixture(scope="session")
def demo_sae_dir() -> Path:
    """The shipped SAE."""
    from ray_jobs.demo import SAE_DIR

    return SAE_DIR


@pytest.fixture(scope="session")
def real_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gemma 3 270M as the GGUF file that its package carries."""
    from ray_jobs.demo import model_file

    return model_file(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="session")
def real_model_dir(real_model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights as a Hugging Face directory in float32: dequantised once (40 s), then quick to load."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    folder = tmp_path_factory.mktemp("gemma-3-270m-hub") / "gemma-3-270m"
    where = {"pretrained_model_name_or_path": real_model_file.parent, "gguf_file": real_model_file.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # transformers refuses to save what it holds to be quantised; these weights no longer are
    del model.config.quantization_config
    model.is_quantized, model.hf_quantizer = False, None
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(**where).save_pretrained(folder)
    return folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker of `pytest -n` whole files, and one of them all that start Ray: they would find each other."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            return "ray" if any(part in STARTS_RAY for part in Path(file).parts) else file

    return ByFile(config, log)
