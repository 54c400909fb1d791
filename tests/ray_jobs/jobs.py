"""A whole tiny job on disk: checkpoint, SAE, corpus and JOB.yaml, and what tests ask of the stores that come of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ray_jobs.spec import JobSpec, job_from_mapping
from tests.tiny import NAN_WORD, tiny_gemma2, tiny_sae, tiny_texts


def write_models(directory: Path) -> Path:
    """The checkpoint `tiny-gemma2` and the SAEs `sae` (layer 2) and `foreign` (of another model) in `directory`."""
    tiny_gemma2(directory)
    tiny_sae(directory / "sae")
    tiny_sae(directory / "foreign", model_name="gemma-2-9b")
    return directory


def write_corpus(path: Path, n: int, *, faults: bool = False, seed: int = 0, max_words: int = 30) -> Path:
    """`n` documents as JSONL; with `faults`, row 3 is broken, row 5 has no text, row 7 is empty, row 9 makes NaN."""
    lines = [
        json.dumps({"id": f"d{row}", "text": text, "label": row % 3})
        for row, text in enumerate(tiny_texts(n, seed=seed, max_words=max_words))
    ]
    if faults:
        lines[3] = '{"id": "d3", "text": '
        lines[5] = json.dumps({"id": "d5", "text": None, "label": 0})
        lines[7] = json.dumps({"id": "d7", "text": "", "label": 0})
        lines[9] = json.dumps({"id": "d9", "text": f"love {NAN_WORD} hate", "label": 0})
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def job_mapping(models: Path, corpus: Path, store: Path, /, **changes: Any) -> dict[str, Any]:
    """What JOB.yaml holds; a change replaces a top-level key, or is merged into it if both are mappings."""
    mapping: dict[str, Any] = {
        "corpus": {"path": str(corpus), "text": "text", "id": "id", "keep": ["label"]},
        "model": {"name": str(models / "tiny-gemma2"), "dtype": "float32", "max_tokens": 64},
        "saes": [{"path": str(models / "sae"), "name": "tiny"}],
        "pool": ["max", "sum", "count"],
        "hidden": ["mean"],
        "store": str(store),
        "workers": {"max": 1, "gpus": 0},
        "units": {"documents": 20},
    }
    for key, value in changes.items():
        merge = isinstance(value, Mapping) and isinstance(mapping.get(key), dict)
        mapping[key] = {**mapping[key], **value} if merge else value
    return mapping


def make_job(models: Path, corpus: Path, store: Path, /, **changes: Any) -> JobSpec:
    """The job of `job_mapping`."""
    return job_from_mapping(job_mapping(models, corpus, store, **changes), models)


def write_job(path: Path, mapping: Mapping[str, Any]) -> Path:
    """JOB.yaml."""
    path.write_text(yaml.safe_dump(dict(mapping)), encoding="utf-8")
    return path


def parts_of(store: Path) -> dict[str, bytes]:
    """Name -> bytes of every visible part."""
    return {part.name: part.read_bytes() for part in sorted((store / "parts").glob("*.parquet"))}
