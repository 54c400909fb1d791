"""A small label job on disk, run unit by unit in this process, and transformers' own answers to compare with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from featurestore.format.store_plan import create_store
from featurestore.reader import FeatureStore
from featurestore.writing.writer import finish_store
from ray_jobs.backbone.bundle import Bundle, open_bundle
from ray_jobs.labels.run import plan_labels
from ray_jobs.labels.spec import label_job_from_mapping
from ray_jobs.labels.table import write_table
from ray_jobs.prepare.build import prepare
from ray_jobs.workers.worker import Worker, WorkerTask
from tests.tiny import tiny_gemma2, tiny_texts

CHOICE_TASK = {"prompt": "question", "choices": "options", "answer": "right"}


def answering_model(directory: Path) -> Path:
    """A small random Gemma 2 whose output matrix is its own, for a word of its embedding is not a number."""
    return tiny_gemma2(directory, tied=False, name="tiny-answering")


def whole_bundle(model: Path, cache: Path, dtype: str = "float32", **settings: Any) -> Bundle:
    """The bundle of a label job."""
    mapping = {
        "corpus": {"path": "unused.jsonl"},
        "model": {"name": str(model), "dtype": dtype, **settings},
        "task": CHOICE_TASK,
        "out": "unused.parquet",
    }
    return open_bundle(prepare(label_job_from_mapping(mapping, cache)[1], cache))


def questions(n: int, seed: int = 0, max_words: int = 40) -> list[dict[str, Any]]:
    """Rows with two to four choices of one to several tokens, some of which begin alike."""
    prompts = tiny_texts(n, seed=seed, max_words=max_words)
    options = tiny_texts(4 * n, seed=seed + 1, max_words=4)
    rows = []
    for number, prompt in enumerate(prompts):
        mine = list(dict.fromkeys(["yes", *options[4 * number : 4 * number + 2 + number % 2], "yes and no"]))
        rows.append({"id": f"q{number}", "question": prompt, "options": mine, "right": number % len(mine)})
    return rows


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Rows as JSONL."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def label_mapping(model: Path, corpus: Path, out: Path, /, **changes: Any) -> dict[str, Any]:
    """What JOB.yaml of a label job holds."""
    return {
        "corpus": {"path": str(corpus), "id": "id"},
        "model": {"name": str(model), "dtype": "float32", "max_tokens": 128},
        "task": CHOICE_TASK,
        "out": str(out),
        "workers": {"max": 1, "gpus": 0},
        "units": {"documents": 20},
        **changes,
    }


def run_here(mapping: dict[str, Any], base: Path, blamed: Mapping[int, str] | None = None) -> list[dict[str, Any]]:
    """Run a label job without Ray; the rows of its table. `blamed`: rows of each unit that make it fail, and why."""
    import pyarrow.parquet as pq

    spec, job = label_job_from_mapping(mapping, base)
    plan = plan_labels(spec, job)
    create_store(job.store, plan.store)
    worker = Worker(WorkerTask.of(plan))
    worker.open()
    finish_store(job.store, [worker.run(unit, blamed).record for unit in plan.units])  # type: ignore[union-attr]
    assert FeatureStore.open(job.store).verify().ok
    write_table(spec, FeatureStore.open(job.store))
    rows: list[dict[str, Any]] = pq.read_table(spec.out).to_pylist()
    return rows


class Direct:
    """transformers by hand: the whole model in float32, one text at a time."""

    def __init__(self, path: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation="eager"
        ).eval()

    def log_likelihood(self, prompt: str, end: str, chat: Sequence[dict[str, str]] | None = None) -> float:
        """Of the tokens of `end` behind a prompt, or behind the rendering of a chat with the model's turn opened."""
        import torch

        special = chat is None
        if chat is not None:
            prompt = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        fed = self.tokenizer(prompt + end, add_special_tokens=special, return_offsets_mapping=True)
        first = next(i for i, (_, stop) in enumerate(fed["offset_mapping"]) if stop > len(prompt))
        ids = torch.tensor([fed["input_ids"]])
        with torch.no_grad():
            log_proba = self.model(ids, use_cache=False).logits[0].double().log_softmax(-1)
        return float(sum(log_proba[t - 1, ids[0, t]] for t in range(first, ids.shape[1])))

    def written(self, prompt: str, n: int, chat: Sequence[dict[str, str]] | None = None) -> list[int]:
        """The ids that `generate` puts behind a prompt."""
        import torch

        if chat is not None:
            prompt = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        fed = self.tokenizer(prompt, add_special_tokens=chat is None, return_tensors="pt")
        with torch.no_grad():
            ids = self.model.generate(
                input_ids=fed["input_ids"], attention_mask=fed["attention_mask"], do_sample=False, max_new_tokens=n
            )
        found: list[int] = ids[0, fed["input_ids"].shape[1] :].tolist()
        return found
