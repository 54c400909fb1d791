"""The studies of docs/results.md: both presets of the paper's questions on the stores of `benchmarks.study_stores`.

`python -m benchmarks.study_results NAME... --stores DIR` takes examples/paper-{reproduction,corrected}.yaml, puts in
the store, its SAE and its columns, and runs them; `regimes` and `languages` are the harder conditions.
Tables go to the terminal and to DIR/results/NAME.txt, files to DIR/results/NAME.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from featurestore import FeatureStore
from training.output.printed import format_study
from training.spec import study_from_mapping
from training.study import run_study

EXAMPLES = Path(__file__).parent.parent / "examples"
SAE = "l9_4k"
# What HateCheck's documents share is their template; the news collections have no groups.
COLUMNS: dict[str, dict[str, Any]] = {
    "hatecheck": {"group": "group", "seeds": 2, "folds": 5},
    "hatecheck-en": {"group": "group", "seeds": 2, "folds": 4},
    "r8": {"group": None, "seeds": 1, "folds": 4},
    "newsgroups": {"group": None, "seeds": 1, "folds": 4},
}
# Eight and twenty classes cost as many columns of weights: for two cores, fewer cells.
FEWER_CELLS = ("r8", "newsgroups")
REGIMES = {
    "features": [{"sae": SAE, "pool": ["max"]}],
    "baselines": ["tfidf", "char_ngrams", "hidden_mean"],
    "probes": ["logistic_l2", "k_sparse"],
}
EXTRA: dict[str, dict[str, Any]] = {
    "regimes": {
        **REGIMES,
        "store": "hatecheck",
        "split": {"seeds": 2, "folds": 4, "group": "group"},
        "regimes": {"train_sizes": [64, 256, 1024], "label_noise": [0.2, 0.4]},
    },
    "languages": {
        **REGIMES,
        "store": "hatecheck",
        "split": {"seeds": 2, "folds": 4, "group": "group"},
        "transfer": {"by": "lang"},
    },
    "given": {
        "features": [{"sae": SAE, "pool": ["max", "sum"], "binarize": [None, 1.0]}],
        "baselines": ["tfidf", "hidden_mean", "hidden_last"],
        "probes": ["logistic_l2"],
        "store": "r8",
        "split": {"seeds": 1, "folds": 5, "column": {"name": "part", "test": "test"}},
    },
}


def main(argv: list[str] | None = None) -> int:
    """Run the studies that are asked for."""
    names = [f"{store}-{arm}" for store in COLUMNS for arm in ("reproduction", "corrected")] + list(EXTRA)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study_results", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="+", choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--stores", type=Path, required=True, help="where benchmarks.study_stores put them")
    args = parser.parse_args(argv)
    write_labels(args.stores)
    for name in args.names:
        spec = study_from_mapping(mapping_of(name), args.stores)
        result = run_study(spec)
        table = f"{format_study(result)}\n({result.seconds:.0f} s)\n"
        print(f"\n== {name}\n{table}", flush=True)
        (args.stores / "results" / f"{name}.txt").write_text(table, encoding="utf-8")
    return 0


def mapping_of(name: str) -> dict[str, Any]:
    """The study of that name as plain data; its paths are relative to the stores'."""
    if name in EXTRA:
        study = dict(EXTRA[name])
    else:
        store, arm = name.rsplit("-", 1)
        text = (EXAMPLES / f"paper-{arm}.yaml").read_text(encoding="utf-8")
        study = yaml.safe_load(text.replace("l12_16k", SAE))
        study["store"] = store.removesuffix("-en")
        if arm == "corrected":
            study["split"] |= COLUMNS[store]
        if store in FEWER_CELLS:
            study["split"]["folds"] = COLUMNS[store]["folds"]
            study["features"][0] |= {"pool": ["sum", "max"]}
            study["probes"] = ["softmax", "tree"] if arm == "reproduction" else ["logistic_l2", "tree"]
    label: Any = "label"
    if name == "regimes" or name.rsplit("-", 1)[0] == "hatecheck-en":  # documents without a label take no part
        label = {"path": "hatecheck-en-labels.parquet", "id": "doc_id", "column": "label"}
    return {**study, "label": label, "out": f"results/{name}"}


def write_labels(stores: Path) -> None:
    """The labels of HateCheck's English documents as a table of their own."""
    if (stores / "hatecheck").is_dir():
        documents = FeatureStore.open(str(stores / "hatecheck")).documents().select("doc_id", "label", "lang")
        english = documents.filter(pl.col("lang") == "en").collect()
        english.select("doc_id", "label").write_parquet(stores / "hatecheck-en-labels.parquet")


if __name__ == "__main__":
    sys.exit(main())
