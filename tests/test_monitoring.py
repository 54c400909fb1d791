"""The dashboard and the alert rules in examples/monitoring name metrics, labels and values that runs export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ray_jobs.reporting import prometheus
from ray_jobs.workers.failures import Kind

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "monitoring"
SERIES = {"Counter": ("_total",), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}  # as Prometheus sees them
VALUES = {
    "state": {"waiting", "under_way", "done", "failed", "ready", "wanted"},
    "phase": {"read", "compute", "write", "idle"},
    "kind": {kind.event for kind in Kind} | {"deadline", "second run", "search"},
}


def exported() -> dict[str, set[str]]:
    """Each series that runs export -> its labels."""
    made = {**prometheus._worker_metrics("s"), **prometheus._driver_metrics("s")}
    found = {}
    for metric in made.values():
        for ending in SERIES[type(metric).__name__]:
            labels = {*metric.info["tag_keys"], *(["le"] if ending == "_bucket" else [])}
            found[f"ray_{metric.info['name']}{ending}"] = labels
    return found


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))
    return found


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / "prometheus-alerts.yaml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    yield from (rule["expr"] for rule in rules())


def test_every_series_that_is_asked_for_is_exported_with_these_labels() -> None:
    there = exported()
    for expression in expressions():
        asked = re.findall(r"\b(ray_sparsemill_\w+)(?:\{([^}]*)\})?", expression)
        assert asked
        grouped = {name.strip() for names in re.findall(r"by \(([^)]*)\)", expression) for name in names.split(",")}
        for name, selectors in asked:
            assert name in there, f"{name} in {expression}"
            for label, value in re.findall(r'(\w+)=~?"([^"]*)"', selectors):
                assert label in there[name], f"{label} of {name}"
                assert label == "store" or set(value.split("|")) <= VALUES[label], f"{label}={value}"
            assert grouped <= there[name], f"by {grouped} in {expression}"
        assert expression.count("(") == expression.count(")")


def test_every_metric_of_a_run_is_on_the_dashboard_and_in_the_docs() -> None:
    shown = " ".join(target["expr"] for panel in dashboard()["panels"] for target in panel["targets"])
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    for name in exported():
        stem = re.sub("_(bucket|sum|count)$", "", name)
        assert stem in shown, stem
        assert stem in page or f"`_{stem.removeprefix('ray_sparsemill_')}`" in page, stem
    assert "examples/monitoring" in page


def test_panels_have_names_and_places_of_their_own_and_rules_say_what_to_do() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for at in (panel["gridPos"] for panel in panels)
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells) and max(x for x, _ in cells) < 24  # Grafana's grid
    assert all(panel["description"] for panel in panels)
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert rule["annotations"]["summary"].startswith("{{ $labels.store }}") and rule["annotations"]["description"]
