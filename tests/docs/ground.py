"""The ground on which the pages' code is run: what a reader of a how-to has already, tiny and real.

A folder with reviews, a model and SAEs, a finished store and a study of it. The hub cannot be reached from a test, so
its models and SAEs in the jobs of pages are replaced by these.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from docs.tooling.blocks import Block
from tests.tiny import tiny_gemma2, tiny_sae, tiny_texts

N = 90
LANGUAGES = ("en", "de")
HUB = {"google/gemma-2-2b": "models/tiny-gemma2", "google/gemma-2-9b": "models/tiny-gemma2"}
JOB = {
    "corpus": {"path": "reviews/*.parquet", "text": "text", "id": "id", "keep": ["text", "label", "lang"]},
    "model": {"name": "models/tiny-gemma2", "max_tokens": 64, "dtype": "float32"},
    "saes": [{"path": "saes/sae", "name": "l12_16k"}],
    "pool": ["max", "sum", "count"],
    "hidden": ["mean", "last"],
    "store": "reviews-gemma-2-2b",
    "workers": {"max": 1, "gpus": 0},
}
STUDY = {
    "store": "reviews-gemma-2-2b",
    "label": "label",
    "features": [{"sae": "l12_16k", "pool": ["max", "sum"]}],
    "baselines": ["tfidf", "hidden_mean"],
    "split": {"test": 0.3, "folds": 3, "seeds": 1},
    "bootstrap": 100,
    "out": "study",
}


def write_ground(folder: Path) -> None:
    """Everything but the store and the study, which the commands make."""
    for name in ("reviews", "models", "saes", "new"):
        (folder / name).mkdir(parents=True)
    tiny_gemma2(folder / "models")
    tiny_sae(folder / "saes/sae", d_sae=2048)
    tiny_sae(folder / "saes/wide", d_sae=2048, seed=1)
    tiny_sae(folder / "saes/foreign", d_sae=2048, model_name="gemma-2-9b")
    draw = random.Random(0)
    rows = [
        {"id": f"review-{i}", "label": ("good", "bad")[i % 2], "lang": draw.choice(LANGUAGES), "text": text}
        for i, text in enumerate(tiny_texts(N, max_words=30))
    ]
    for row in rows:
        row["text"] += " love love" if row["label"] == "good" else " hate hate"
    half = N // 2
    pl.DataFrame(rows[:half]).write_parquet(folder / "reviews/a.parquet")
    pl.DataFrame(rows[half:]).write_parquet(folder / "reviews/b.parquet")
    new = pl.DataFrame(rows[:12]).with_columns(pl.col("text").alias("body"), pl.format("new-{}", "id").alias("id"))
    new.write_parquet(folder / "new/a.parquet")
    new.write_csv(folder / "new.csv")
    (folder / "lines.txt").write_text("first line\nsecond line\n")
    yaml_files = {"job": JOB, "study": STUDY}
    yaml_files["new"] = {**JOB, "corpus": {"path": "new.csv", "text": "body", "id": "id"}, "store": "new-store"}
    for name, mapping in yaml_files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(mapping))
    _write_names(folder)


def _write_names(folder: Path) -> None:
    """Names of features as Neuronpedia exports them, and a table of one's own."""
    for batch in (0, 1):
        rows = [
            {"modelId": "tiny-gemma2", "layer": "2-x", "index": str(i), "description": f"thing {i}"}
            | {"explanationModelName": "gpt-4o-mini", "typeName": "oai_token-act-pair"}
            for i in range(1200 + 20 * batch, 1220 + 20 * batch)
        ]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"batch-{batch}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "own.csv").write_text("feature,name\n1234,what we call it\n7,seven\n")


def environment(folder: Path) -> dict[str, str]:
    """As in a shell in which the environment was activated; the cache is the ground's own where none is named."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    root = str(Path(__file__).parents[2])
    cache = os.environ.get("SPARSEMILL_CACHE", str(folder / "cache"))
    return {**os.environ, "PATH": path, "SPARSEMILL_CACHE": cache, "PYTHONPATH": root}


def run_bash(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a block; an unset variable, a command that fails or one in a pipe that does ends it."""
    command = ["bash", "-euo", "pipefail", "-c", code]
    return subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)


def here(value: Any) -> Any:
    """A job with the ground's model and SAEs in place of the hub's, and one worker without a GPU."""
    if isinstance(value, Mapping):
        if "release" in value and "id" in value:
            return {"path": "saes/sae", "name": value["name"]}
        return {key: here(below) for key, below in value.items()}
    if isinstance(value, list):
        return [here(below) for below in value]
    return HUB.get(value, value) if isinstance(value, str) else value


def write_yaml(block: Block, folder: Path) -> None:
    """The file that a block of a page is; of a job, the ground's own store and study give way to what it will write."""
    mapping = yaml.safe_load(block.code)
    if "corpus" in mapping:
        mapping = {**here(mapping), "workers": {"max": 1, "gpus": 0}}
        if (folder / mapping["store"]).exists():
            for place in (mapping["store"], "study"):
                shutil.rmtree(folder / place, ignore_errors=True)
    elif "label" in mapping:
        mapping = {"bootstrap": 100, **mapping}
    assert block.file is not None
    (folder / block.file).write_text(yaml.safe_dump(mapping, sort_keys=False))


@contextlib.contextmanager
def bucket(folder: Path) -> Iterator[dict[str, str]]:
    """An S3 server on this machine whose `my-bucket` holds the reviews; yields the variables that lead to it."""
    from pyarrow import fs

    from tests.crash.s3 import proxied, s3_server

    with s3_server() as port, proxied(port) as proxy:
        keys = {"access_key": "a", "secret_key": "b", "region": "us-east-1", "scheme": "http"}
        there = fs.S3FileSystem(**keys, endpoint_override=f"127.0.0.1:{port}", allow_bucket_creation=True)
        there.create_dir("my-bucket")
        fs.copy_files(str(folder / "reviews"), "my-bucket/reviews", destination_filesystem=there)
        yield proxy.environment()


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def copied(finished: Path, folder: Path) -> Path:
    """A ground of one's own."""
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    return folder
