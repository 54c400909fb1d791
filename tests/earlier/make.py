"""How the files beside this one were made: by version 0.1.0 at commit fc27635, from its root.

`PYTHONPATH=. python make.py /srv/earlier`, with this file copied there; the folder has to be new. Of study-tree only
the model and its predictions are kept.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from tests.tiny import tiny_gemma2, tiny_sae, tiny_texts

root = Path(sys.argv[1])
root.mkdir(parents=True)
tiny_gemma2(root)
tiny_sae(root / "sae")

rng = random.Random(1)
texts = tiny_texts(60, seed=1, min_words=4, max_words=30)
words = {"praise": ["love", "good", "bright"], "blame": ["hate", "bad", "never"]}
lines = []
for row, text in enumerate(texts):
    label = ("praise", "blame")[row % 2]
    said = text.split(" ")
    for _ in range(4):
        said.insert(rng.randint(0, len(said)), rng.choice(words[label] if rng.random() < 0.8 else ["river", "stone"]))
    document = {"id": f"d{row:03}", "text": " ".join(said), "label": label, "lang": ("en", "de", "it")[row % 3]}
    lines.append(json.dumps(document, ensure_ascii=False))
(root / "corpus.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

job = {
    "corpus": {"path": "corpus.jsonl", "text": "text", "id": "id", "keep": ["text", "label", "lang"]},
    "model": {"name": "tiny-gemma2", "dtype": "float32", "max_tokens": 48},
    "saes": [{"path": "sae", "name": "tiny"}],
    "pool": ["max", "sum"],
    "hidden": ["mean"],
    "store": "finished",
    "workers": {"max": 1, "gpus": 0, "cpus": 1},
    "units": {"documents": 20},
}
study = {
    "store": "finished",
    "label": "label",
    "features": [{"sae": "tiny", "pool": ["max", "sum"]}],
    "baselines": ["hidden_mean"],
    "split": {"seeds": 2, "folds": 3},
    "bootstrap": 100,
    "out": "study",
}
tree = {**study, "features": [{"sae": "tiny", "pool": "max"}], "baselines": [], "probes": ["tree"], "out": "study-tree"}


def write(name: str, content: dict) -> str:
    (root / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return str(root / name)


def run(*argv: str, fault: str = "") -> int:
    env = {**os.environ, "SPARSEMILL_CACHE": str(root / "cache"), "SPARSEMILL_TEST_FAULT": fault}
    return subprocess.run([sys.executable, "-m", "sparsemill", *argv], env=env, check=False).returncode


assert run("extract", write("finished.yaml", job)) == 0
assert run("study", write("study.yaml", study)) == 0
assert run("study", write("study-tree.yaml", tree)) == 0
for name, out in (("study", "sae"), ("study", "baseline"), ("study-tree", "sae")):
    assert run("predict", f"{root}/{name}/models/{out}.json", "--store", f"{root}/finished",
               "--out", f"{root}/{name}/predicted-{out}.parquet") == 0  # fmt: skip
killed = f"driver.after_commit=kill@{root / 'marker'}"
assert run("extract", write("unfinished.yaml", {**job, "store": "unfinished"}), fault=killed) != 0

for store in ("finished", "unfinished"):
    for notes in (root / store).glob(".*"):
        shutil.rmtree(notes) if notes.is_dir() else notes.unlink()
for made_again in ("tiny-gemma2", "sae", "cache"):
    shutil.rmtree(root / made_again)
(root / "marker").unlink()
