"""What a user writes: pyright in strict mode finds nothing to say of it (tests/test_python_front.py). It is not run."""

from pathlib import Path

import polars as pl

import sparsemill as sm


def features(job: Path) -> sm.FeatureStore:
    plan = sm.plan(job, hardware="l4")
    print(plan, plan.documents + plan.tokens, plan.cost or 0.0, [warning.upper() for warning in plan.warnings])
    return sm.extract(job, address="auto", workers=2)


def look(store: sm.FeatureStore) -> pl.DataFrame:
    documents = store.documents().filter(pl.col("lang") == "de").collect()
    matrix = store.matrix("l12_16k", pool="max")
    evidence = sm.tokens(store, [str(matrix.doc_id[0])], "l12_16k:17")
    names = sm.names(store, features=[17])
    return documents.join(evidence.frame(), on="doc_id").join(names, on="feature")


def decide(store: sm.FeatureStore, out: str) -> pl.DataFrame:
    study = sm.study({"store": store.uri, "label": "label", "features": [{"sae": "l12_16k"}], "out": out})
    best: float = study.methods()["macro_f1"].max()  # type: ignore[assignment]
    print(study, best, study.comparisons().height, sm.report(study, private=True, out="for-others.html"))
    return sm.predict(study.models["sae"], text=["a text", "another"], explain=3)


try:
    print(decide(features(Path("job.yaml")), "study").filter(pl.col("decision") == "spam"))
except sm.SparsemillError as error:
    raise SystemExit(error.exit_code) from error
print(sm.__version__, sm.open("store").status().complete, sm.open_study("study").models)
