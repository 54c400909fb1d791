"""JSON of ours is JSON for everybody: null stands for numbers that are not finite, in pages and in files."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from featurestore.base.json_text import json_text
from featurestore.checks.run_files import RunRecord
from sparsemill import main
from tests.training.stores import SAE, build_store, make_documents

ROOT = Path(__file__).parents[3]
INF, NAN = float("inf"), float("nan")


def strict(text: str | bytes) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_null_stands_for_what_is_not_finite_at_any_depth() -> None:
    document = {"a": [1.5, INF, (NAN, -INF)], "b": {"c": {"d": INF}}, "e": "größe", "f": 2**70, "g": True, "h": None}
    expected = {**document, "a": [1.5, None, [None, None]], "b": {"c": {"d": None}}}
    for options in ({}, {"indent": 2}, {"ascii": True}):
        text = json_text(document, **options)
        assert strict(text) == expected and text.isascii() == bool(options.get("ascii"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store that keeps such numbers, and a study of it."""
    root = tmp_path_factory.mktemp("odd")
    documents = make_documents(n=60)
    documents.extra = {"odd": [[INF, NAN, -INF, 1e300][i % 4] for i in range(60)]}
    documents.extra_types = {"odd": "float64"}
    study = {
        "store": build_store(root / "store", documents), "label": "label", "bootstrap": 100, "baselines": ["majority"],
        "features": [{"sae": SAE, "pool": ["max"]}], "split": {"seeds": 1, "folds": 2}, "out": str(root / "study"),
    }  # fmt: skip
    (root / "study.yaml").write_text(json.dumps(study))
    assert main(["study", str(root / "study.yaml")]) == 0
    return root


def test_every_command_prints_json_that_others_read(odd: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store, model = str(odd / "store"), str(odd / "study" / "models" / "sae.json")
    capfd.readouterr()
    for command in (
        ["show", store],
        ["show", store, "--doc", "doc-0"],
        ["show", store, "--feature", f"{SAE}:17"],
        ["show", str(odd / "nowhere")],
        ["status", store],
        ["verify", store],
        ["study", str(odd / "study.yaml")],
        ["predict", model, "--store", store],
        ["predict", model, "--store", store, "--out", str(odd / "p.jsonl")],
        ["explain", model],
        ["export", store, str(odd / "x.npz")],
        ["compact", store, str(odd / "compact")],
    ):
        main([*command, "--json"])
        found = strict(capfd.readouterr().out)
        if command[:2] == ["show", store]:
            assert '"odd": null' in json.dumps(found)


def test_every_json_file_is_one_that_others_read(odd: Path) -> None:
    model, rows = str(odd / "study" / "models" / "sae.json"), odd / "q.jsonl"
    assert main(["predict", model, "--store", str(odd / "store"), "--out", str(rows)]) == 0
    files = [path for path in odd.rglob("*") if path.suffix == ".json"]
    assert {"store.json", "manifest.json", "results.json", "sae.json"} <= {path.name for path in files}
    for path in files:
        strict(path.read_bytes())
    assert [strict(line)["odd"] for line in rows.read_bytes().splitlines()[:4]] == [None, None, None, 1e300]
    strict(RunRecord("r", "running", "h", 1, "2020-01-01", "2020-01-01", tokens_per_second=INF).to_bytes())


def test_no_other_way_leads_json_out() -> None:
    """`json.dumps` elsewhere only makes what is hashed, compared or sent, or refuses such numbers itself."""
    inward = {
        "featurestore": {"base/json_text.py", "base/differences.py", "tables/values.py"},
        "training": {"evaluation.py", "documents/split.py"},
        "ray_jobs": {
            "planning/job_plan.py",
            "prepare/build.py",
            "prepare/checkpoint.py",
            "prepare/unpickle_child.py",  # read by the process that started it
            "cluster/package.py",
            "demo/__init__.py",
        },
    }
    known = {ROOT / package / name for package, names in inward.items() for name in names}
    packages = (ROOT / name for name in inward)
    for path in [path for package in (ROOT / "sparsemill", *packages) for path in package.rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "dumps" and path not in known:
                line = path.read_text(encoding="utf-8").splitlines()[node.lineno - 1]
                assert "allow_nan=False" in line or "json.dumps(key)" in line or "hashlib" in line, f"{path}: {line}"
