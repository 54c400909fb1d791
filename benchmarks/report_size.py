"""How large a study's report is and how long it takes, at the sizes of its budget: `python -m benchmarks.report_size`.

The studies are made up, file by file, as a study writes them: scores, regimes, transfer, predictions of 1,000 test
documents, an explanation with evidence for each example, errors. Reports with general chart libraries are 3 to 80 MB.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.evidence.cache import EvidenceCache, text_sha256
from featurestore.evidence.records import DocumentEvidence, FeatureEvidence, Token
from training.report.naming import EXAMPLES, wanted_evidence
from training.report.study_page import study_report
from training.results.factors import AGAINST_BASELINES

BUDGET = {(40, 10): (300_000, 60_000), (200, 50): (1_500_000, None)}  # (cells, features): bytes, gzipped bytes
SECONDS = 5.0
WORDS = ("the", "of", "ignore", "previous", "instructions", "system", "prompt", "and", "please", "text", "for", "me")
POOLS, THRESHOLDS = ("max", "sum", "mean", "count", "last"), (None, 0.0, 1.0, 2.0)
SAE = "l9_4k"


def make_study(
    out: Path, cells: int, features: int, classes: Sequence[str] = ("attack", "benign"), strange: Sequence[str] = ()
) -> Path:
    """Write the files of a study that never ran.

    Args:
        out: Its directory, made.
        cells: Methods beside the majority.
        features: That the explanation shows.
        classes: Two or more.
        strange: Strings that take turns as ids, texts, labels, notes and names; plain ones if empty.
    """
    rng = np.random.default_rng(0)
    odd = [*strange] or [""]
    out.mkdir(parents=True)
    methods = [_method("majority", "majority", rng)]
    methods += [_method(name, kind, rng) for name, kind in (("tfidf", "tfidf"), ("hidden_mean", "dense"))]
    grid = [(f"{SAE}{i}", pool, t) for i in range(cells) for pool in POOLS for t in THRESHOLDS][: max(cells - 2, 1)]
    names = [
        f"{sae}:{pool}{'' if t is None else f'>{t:g}'}{odd[i % len(odd)]}" for i, (sae, pool, t) in enumerate(grid)
    ]
    methods += [_method(name, "sae", rng) for name in names]
    sae, baseline = methods[3], methods[2]
    doc_ids = [f"doc-{i}{odd[i % len(odd)]}" for i in range(1000)]
    explanation = _explanation(sae["method"], features, doc_ids, classes, odd, rng)
    _evidence(out, explanation, odd, rng)
    summary = _summary(methods, classes, sae, baseline, odd)
    (out / "results.json").write_text(json.dumps(summary))
    (out / "explanation.json").write_text(json.dumps(explanation))
    rows = [
        {"method": m["method"], "kind": m["kind"], "sae": s, "pool": p, "binarize": None if t is None else str(t),
         "scale": "max_abs", "select": None, "k": None, "probe": "logistic_l2", "condition": "", "n_train": 800,
         "macro_f1": m["macro_f1"]["value"]}
        for m, (s, p, t) in zip(methods, [("", "", None)] * 3 + grid, strict=False)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), out / "results.parquet")
    _predictions(out, (sae["method"], baseline["method"]), doc_ids, classes, rng)
    return out


def _method(name: str, kind: str, rng: np.random.Generator) -> dict[str, Any]:
    value = 0.33 if kind == "majority" else float(rng.uniform(0.7, 0.95))
    return {
        "method": name, "kind": kind, "macro_f1": _around(value), "accuracy": _around(value), "auroc": _around(value),
        "validation_macro_f1": value, "C": [1.0, 10.0], "auprc": value, "brier": 1 - value, "ece": 0.1,
        "class_f1": [value, value], "chosen": 1, "cells": [], "notes": [],
    }  # fmt: skip


def _around(value: float, half: float = 0.04) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def _summary(
    methods: Sequence[dict[str, Any]], classes: Sequence[str], sae: Any, baseline: Any, odd: Sequence[str]
) -> dict[str, Any]:
    comparisons = [
        {"question": AGAINST_BASELINES, "a": "SAE features", "b": b, "difference": _around(d), "p": p, "spread": 0.02,
         "p_adjusted": p, "shown": p < 0.05}
        for b, d, p in (("majority", 0.5, 1e-9), ("hidden_mean", 0.01, 0.4), (f"TF-IDF words{odd[-1]}", 0.1, 0.001))
    ]  # fmt: skip
    families = ("SAE, selected", "baseline, selected")
    sizes = [(f"n={n}", "", n) for n in (32, 128, 512)] + [(f"noise={s}", "", 800) for s in (0.1, 0.2)]
    parts = [f"{name}{odd[i % len(odd)]}" for i, name in enumerate(("en", "de", "fr"))]
    sizes += [(f"train={a}", b, 300) for a in parts for b in parts]
    return {
        "format_version": 1,
        "spec": {"store": f"/data/store{odd[0]}", "label": f"label{odd[-1]}", "split": {"folds": 5, "group": None},
                 "transfer": {"by": f"lang{odd[-1]}"}},
        "store": {"fingerprint": "0" * 64, "rows": 1010},
        "documents": {"used": 1000, "left_out": {"no_label": 10}, "notes": [f"note{o}" for o in odd[:5]],
                      "truncated": 3,
                      "classes": dict.fromkeys(classes, 1000 // len(classes)), "groups": None, "near_duplicates": None},
        "split": {"sha256": "1" * 64, "test_documents": [200] * 5, "warnings": [f"warning{o}" for o in odd[:3]]},
        "selection": {"by": "mean macro F1 over inner folds of the training documents", "c_grid": [1.0]},
        "test_set": {"looked_at": len(methods) * 5, "by": "each method once in each split and regime"},
        "intervals": {"resampled": "documents", "resamples": 1000, "cover": "chance in what was tested"},
        "methods": list(methods),
        "selected": {"sae": {**sae, "cells": [sae["method"]] * 5},
                     "baseline": {**baseline, "cells": [baseline["method"]] * 5}},
        "headline": {"sae": {"method": sae["method"], "cells": [sae["method"]] * 5},
                     "baseline": {"method": baseline["method"], "cells": [baseline["method"]] * 5},
                     "comparison": comparisons[1]},
        "comparisons": comparisons,
        "regimes": [
            {"condition": c, "test_part": part, "method": m, "n_train": n, "documents": 500,
             "units": 500, "macro_f1": _around(0.6), "auroc": _around(0.7)}
            for c, part, n in sizes for m in families
        ],
        "feature_overlap": [{"method": sae["method"], "train": "en", "other": "de", "jaccard": 0.3}],
        "versions": {"python": "3.12"},
    }  # fmt: skip


def _explanation(
    method: str, features: int, doc_ids: Sequence[str], classes: Sequence[str], odd: Sequence[str], rng: Any
) -> dict[str, Any]:
    def document(i: int) -> dict[str, Any]:
        text = f"{' '.join(rng.choice(WORDS, 20))} {odd[i % len(odd)]}"
        return {"doc_id": doc_ids[i % 1000], "label": classes[i % len(classes)], "value": 3.0, "text": text[:160]}

    shown = [
        {"feature": i, "name": f"{SAE}:{i}", "toward": classes[i % len(classes)], "coefficient": 1.5,
         "weight": 1 / (i + 1),
         "share": 0.05, "document_frequency": dict.fromkeys(classes, 0.4),
         "document_interval": {c: [0.3, 0.5] for c in classes}, "document_counts": {c: [160, 400] for c in classes},
         "flags": [], "copies": [{"name": f"{SAE}:{i + 1}", "correlation": 0.95}] if i + 1 < features else [],
         **{kind: [document(9 * i + 3 * k + j) for j in range(3)] for k, kind in enumerate(EXAMPLES)}}
        for i in range(features)
    ]  # fmt: skip
    errors = [
        {**document(500 + i), "predicted": classes[(i + 1) % len(classes)], "probability": 0.9,
         "reasons": [{"name": f"{SAE}:{j}", "push": 1.5 - j} for j in range(min(4, features))]}
        for i in range(20)
    ]  # fmt: skip
    return {
        "method": method, "sae": SAE, "pool": "sum", "binarize": None, "probe": "logistic_l2", "parameter": "C",
        "C": 1.0, "seed": 0, "documents": 800, "classes": list(classes), "deciding": 900,
        "weight": "|coefficient x difference|",
        "majority": None, "store": None, "features": shown, "errors": errors,
    }  # fmt: skip


def _evidence(out: Path, explanation: dict[str, Any], odd: Sequence[str], rng: Any) -> None:
    """Tokens of every document that is shown, for the features that it is shown for."""
    cache = EvidenceCache(out / "evidence")
    for i, (doc_id, keys) in enumerate(wanted_evidence(explanation).items()):
        words = [f" {w}" for w in rng.choice(WORDS, 80)] + [odd[i % len(odd)] or " end"]
        words = [w.encode("utf-8", "replace").decode() for w in words]
        ends = np.cumsum([len(w) for w in words]).tolist()
        tokens = tuple(Token(w, end - len(w), end, True) for w, end in zip(words, ends, strict=True))
        found = []
        for sae, n in keys:
            values = np.where(rng.random(len(tokens)) < 0.12, rng.gamma(2.0, size=len(tokens)), 0.0).round(4).tolist()
            found.append(FeatureEvidence(sae, n, tuple(values), max(values), float(np.sum(values))))
        text = "".join(words)
        doc_id = doc_id.encode("utf-8", "replace").decode()
        cache.write(DocumentEvidence(doc_id, tokens, tuple(found)), text_sha256(text), "2" * 64)


def _predictions(out: Path, methods: Sequence[str], doc_ids: Sequence[str], classes: Sequence[str], rng: Any) -> None:
    tables = []
    for method in methods:
        true = rng.integers(0, len(classes), 1000)
        logits = rng.normal(size=(1000, len(classes))) + 2.0 * np.eye(len(classes))[true]
        score = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        tables.append(pa.table({
            "doc_id": [i.encode("utf-8", "replace").decode() for i in doc_ids], "seed": np.arange(1000) // 200,
            "outer": np.zeros(1000, np.int64), "method": [method] * 1000,
            "y_true": [classes[c] for c in true], "y_pred": [classes[c] for c in score.argmax(axis=1)],
            "score": score.tolist(),
        }))  # fmt: skip
    pq.write_table(pa.concat_tables(tables), out / "predictions.parquet")


def main() -> None:
    """Print size and seconds beside the budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", metavar="DIR", help="keep studies and reports there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for (cells, features), (most, most_zipped) in BUDGET.items():
            out = make_study(Path(args.keep or temporary) / f"{cells}-{features}", cells, features)
            study_report(str(out))  # libraries are read once
            started = time.perf_counter()
            page = study_report(str(out))
            seconds = time.perf_counter() - started
            if args.keep:
                (out / "report.html").write_bytes(page)
            zipped = len(gzip.compress(page, mtime=0))
            sizes = f"{len(page):,} bytes (of {most:,}), {zipped:,} gzipped"
            sizes += f" (of {most_zipped:,})" if most_zipped else ""
            print(f"{cells} cells, {features} features: {sizes}, {seconds:.2f} s (of {SECONDS:g})")


if __name__ == "__main__":
    main()
