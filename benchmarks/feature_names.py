"""A blind test of names from evidence: do keywords tell documents in which a feature fires from others?

    python -m benchmarks.feature_names [--corpus FILE.jsonl --group group --documents N] [--json] [--record]

The real 270M and the shipped SAE read a corpus (the demo's, or one of JSON lines with `text` and `id`). Documents are
split in halves, those of one group together. For features drawn by chance among those that fire often enough in both
halves, keywords are made from documents of one half. A judge that sees a name and a text of the other half, and matches
strings, nothing else, is asked two things: which of two documents is the one in which the feature fires (ties count
half), and whether it fires in this one (any keyword is there). The same judge gets every feature's documents with the
names of all other features: what is left of its success then comes from the texts (the longer one, say), not from the
names.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import machine, report
from featurestore.format.store_plan import MANIFEST_JSON
from featurestore.names.documents import name_documents
from featurestore.names.keywords import keyword_name, keywords
from featurestore.names.words import is_unspaced, text_words

if TYPE_CHECKING:
    from featurestore.reader import FeatureStore

TRAINING, HELD_OUT = 20, 10  # documents in which a feature has to fire to be drawn; in as many held-out it is silent
ASKED = 20  # held-out documents of either kind that the judge sees of a feature
RESAMPLES = 2000


def build_store(out: Path, corpus: str | None, keep: Sequence[str], documents: int | None) -> str:
    """The store of the demo, or of another corpus with the demo's model and SAE, by one worker in this process.

    A store that is there stays.
    """
    import yaml

    from featurestore.writing.writer import create_store, finish_store
    from ray_jobs.demo import write_demo
    from ray_jobs.planning.job_plan import make_plan
    from ray_jobs.spec import load_job
    from ray_jobs.workers.worker import Worker, WorkerTask

    demo = write_demo(out)
    if corpus is not None:
        job = yaml.safe_load(demo.job.read_text(encoding="utf-8"))
        name = f"{Path(corpus).stem}-{documents or 'all'}"
        lines = Path(corpus).read_bytes().splitlines(keepends=True)
        (out / f"{name}.jsonl").write_bytes(b"".join(lines[:documents]))
        job["corpus"] = {"path": f"{name}.jsonl", "text": "text", "id": "id", "keep": ["text", *keep]}
        job["store"] = f"store-{name}"
        demo = type(demo)(demo.corpus, out / f"{name}.yaml", demo.study, out / job["store"], demo.results)
        demo.job.write_text(yaml.safe_dump(job), encoding="utf-8")
    if not (demo.store / MANIFEST_JSON).is_file():
        plan = make_plan(load_job(str(demo.job)), lambda line: print(line, file=sys.stderr))
        create_store(str(demo.store), plan.store)
        worker = Worker(WorkerTask.of(plan))
        worker.open()
        finish_store(str(demo.store), [worker.run(unit).record for unit in plan.units])
    return str(demo.store)


def halves(groups: Sequence[str], seed: int) -> np.ndarray:
    """bool [documents]: whether each is of the half that names are made from; a group is never divided."""
    return np.array([hashlib.sha256(f"{seed}:{group}".encode()).digest()[0] % 2 == 0 for group in groups])


def draw_features(fires: np.ndarray, training: np.ndarray, n: int, seed: int) -> list[int]:
    """Features, by chance among those that fire, and are silent, often enough.

    Args:
        fires: bool [documents, features].
        training: bool [documents].
        n: How many.
        seed: Of the draw.
    """
    enough = (
        (fires[training].sum(axis=0) >= TRAINING)
        & (fires[~training].sum(axis=0) >= HELD_OUT)
        & ((~fires[~training]).sum(axis=0) >= HELD_OUT)
    )
    there = np.flatnonzero(enough)
    return sorted(np.random.default_rng(seed).choice(there, min(n, len(there)), replace=False).tolist())


def matches(name: Sequence[str], text: str) -> int:
    """How many of a name's words a text has; of scripts without spaces, as a part of it."""
    words, lower = set(text_words(text)), text.lower()
    return sum(word in words or (is_unspaced(word) and word in lower) for word in name)


def judged(name: Sequence[str], firing: Sequence[str], silent: Sequence[str]) -> tuple[float, float, float]:
    """How the judge does with a name.

    Returns:
        Share of pairs in which the firing document is chosen; share of firing documents with a keyword; share of silent
        documents without one.
    """
    here, elsewhere = (np.array([matches(name, text) for text in texts]) for texts in (firing, silent))
    pairs = (here[:, None] > elsewhere).mean() + 0.5 * (here[:, None] == elsewhere).mean()
    return float(pairs), float((here > 0).mean()), float((elsewhere == 0).mean())


def measure(store: FeatureStore, sae: str, group: str | None, n: int, seed: int) -> dict[str, Any]:
    """The whole test on one store."""
    from ray_jobs.evidence.compute import compute_evidence

    documents = store.documents().collect()
    texts, ids = documents["text"].to_list(), documents["doc_id"].to_list()
    training = halves([str(one) for one in documents[group or "doc_id"].to_list()], seed)
    fires = store.matrix(sae, store.sae(sae).pools[0]).X.toarray() > 0
    features = draw_features(fires, training, n, seed)
    _, told = name_documents(store, sae, features, training, seed)
    wanted = {ids[row]: [(sae, feature) for feature in about] for row, about in told.items()}
    found = keywords(compute_evidence(store, wanted, say=lambda line: print(line, file=sys.stderr)), sae, features)
    held_out, rng = np.flatnonzero(~training), np.random.default_rng(seed + 1)
    shown: dict[int, tuple[list[str], list[str]]] = {}
    for feature in features:
        kinds = [held_out[fires[held_out, feature] == fired] for fired in (True, False)]
        drawn = [rng.choice(rows, min(ASKED, len(rows)), replace=False) for rows in kinds]
        shown[feature] = ([texts[row] for row in drawn[0]], [texts[row] for row in drawn[1]])
    names = {feature: [word.word for word in found[feature]] for feature in features}
    own = np.array([judged(names[feature], *shown[feature]) for feature in features])
    shuffled = np.array(
        [
            np.mean([judged(names[other], *shown[feature]) for other in features if other != feature], axis=0)
            for feature in features
        ]
    )
    rates = fires[~training].mean(axis=0)
    return {
        "documents": len(store),
        "training": int(training.sum()),
        "features": len(features),
        "named": sum(bool(name) for name in names.values()),
        "own": summary(own, seed),
        "shuffled": summary(shuffled, seed),
        "difference": summary(own - shuffled, seed),
        "named_only": summary(own[[bool(names[feature]) for feature in features]], seed) if any(names.values()) else {},
        "each": [
            {
                "feature": feature,
                "name": name.text if (name := keyword_name(feature, found[feature])) else None,
                "fires_in_held_out": float(rates[feature]),
                "pairs": own[at, 0],
                "sensitivity": own[at, 1],
                "specificity": own[at, 2],
                "shuffled_pairs": shuffled[at, 0],
            }
            for at, feature in enumerate(features)
        ],
    }


def summary(figures: np.ndarray, seed: int) -> dict[str, list[float]]:
    """Mean over features with a 95 % interval (percentiles of resampled features) of each figure."""
    rng = np.random.default_rng(seed)
    resampled = figures[rng.integers(0, len(figures), (RESAMPLES, len(figures)))].mean(axis=1)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    keys = ("pairs", "sensitivity", "specificity")
    return {key: [float(figures[:, k].mean()), float(low[k]), float(high[k])] for k, key in enumerate(keys)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, and print or write what was measured."""
    from featurestore.reader import FeatureStore
    from ray_jobs.demo import SAE_NAME

    args = _parser().parse_args(argv)
    described = machine.describe()
    store = FeatureStore.open(
        build_store(Path(args.out), args.corpus, [args.group] if args.group else [], args.documents)
    )
    found = measure(store, SAE_NAME, args.group, args.features, args.seed)
    figures = {"machine": described, "command": sys.argv[1:], **found}
    if args.record:
        name = Path(args.corpus).stem if args.corpus else "demo"
        print(report.record(f"feature-names-{name}", figures, described), file=sys.stderr)
    print(json.dumps(figures, indent=1) if args.json else shown_figures(found))
    return 0


def shown_figures(found: Mapping[str, Any]) -> str:
    """For a terminal."""

    def cells(figures: Mapping[str, Sequence[float]]) -> list[str]:
        return [f"{mean:.3f} ({low:.3f} to {high:.3f})" for mean, low, high in figures.values()]

    lines = [["names", "of pairs", "of firing", "of silent"]]
    lines += [[key.replace("_", " "), *cells(found[key])] for key in ("own", "named_only", "shuffled", "difference")]
    each = [
        f"{one['feature']:>7} {one['pairs']:.2f} {one['shuffled_pairs']:.2f} {one['fires_in_held_out']:>6.1%}  "
        f"{one['name']}"
        for one in found["each"]
    ]
    named = f"{found['named']} of {found['features']} features have keywords"
    head = f"{found['documents']:,} documents, {found['training']:,} to name from; {named}"
    return "\n".join(
        [head, report.aligned(lines), "feature, pairs with its own and with others' names, fires in:", *each]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.feature_names", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--corpus", metavar="FILE.jsonl", help="with `text` and `id` (default: the demo's)")
    parser.add_argument("--group", metavar="COLUMN", help="documents that share its value stay in one half")
    parser.add_argument("--documents", type=int, metavar="N", help="only so many of the corpus, the first")
    parser.add_argument("--features", type=int, default=40, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="bench-names", metavar="DIR", help="for jobs and stores")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write into benchmarks/results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
