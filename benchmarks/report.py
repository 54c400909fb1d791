"""What comes out of the runs: figures, the table, the record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.peers import PEERS
from benchmarks.rounds import Runs

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One peer's figures on one corpus, from the median run.

    Attributes:
        documents_per_second: Of the corpus.
        tokens_per_second: Content tokens: those of the documents, without BOS and padding.
        slowest: Content tokens a second of the slowest run.
        fastest: Of the fastest.
        times_slower_than_ours: Its seconds over ours.
        share_of_limit: Of the machine's limit.
        fed_per_content: Positions that went through the model for each content token.
        bytes_per_document: Written to disk.
        overlap_with_ours: Mean Jaccard index of the features found in a document.
    """

    peer: str
    documents_per_second: float
    tokens_per_second: float
    slowest: float
    fastest: float
    times_slower_than_ours: float | None
    share_of_limit: float | None
    fed_per_content: float | None
    bytes_per_document: float
    overlap_with_ours: float | None


def rows_of(
    runs: Mapping[str, Runs], lengths: Sequence[int], limit: float | None, compare: str = "ours"
) -> dict[str, Row]:
    """Figures of all peers.

    Args:
        runs: Of one corpus.
        lengths: Content tokens of its documents.
        limit: Content tokens a second at the machine's limit.
        compare: The peer that the others are measured against.
    """
    tokens = sum(lengths)
    ours = runs.get(compare)
    rows = {}
    for key, peer in runs.items():
        seconds = [result["seconds"] for result in peer.results]
        last = peer.results[-1]
        rows[key] = Row(
            peer=PEERS.get(key, ("", "", key))[2],
            documents_per_second=len(lengths) / peer.seconds,
            tokens_per_second=tokens / peer.seconds,
            slowest=tokens / max(seconds),
            fastest=tokens / min(seconds),
            times_slower_than_ours=peer.seconds / ours.seconds if ours else None,
            share_of_limit=tokens / peer.seconds / limit if limit else None,
            fed_per_content=last["processed"] / tokens if last["processed"] else None,
            bytes_per_document=last["bytes"] / len(lengths),
            overlap_with_ours=mean_jaccard(ours.features, peer.features) if ours else None,
        )
    return rows


def mean_jaccard(first: Sequence[np.ndarray] | None, second: Sequence[np.ndarray] | None) -> float | None:
    """Mean over documents of the overlap of two sets of features; two empty sets agree."""
    if first is None or second is None:
        return None
    shares = []
    for one, other in zip(first, second, strict=True):
        either = len(np.union1d(one, other))
        shares.append(len(np.intersect1d(one, other)) / either if either else 1.0)
    return float(np.mean(shares))


def table(rows: Mapping[str, Row]) -> str:
    """The figures for people."""
    head = ("", "documents/s", "tokens/s", "(range)", "ours faster", "of limit", "fed", "bytes/doc", "overlap")
    lines = [head]
    for key, row in rows.items():
        lines.append(
            (
                f"{key:<8}{row.peer}",
                f"{row.documents_per_second:.2f}",
                f"{row.tokens_per_second:,.0f}",
                f"{row.slowest:,.0f}-{row.fastest:,.0f}",
                _shown(row.times_slower_than_ours, "{:.1f} x"),
                _shown(row.share_of_limit, "{:.1%}"),
                _shown(row.fed_per_content, "{:.2f}"),
                f"{row.bytes_per_document:,.0f}",
                _shown(row.overlap_with_ours, "{:.3f}"),
            )
        )
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Columns under one another: the first to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    rendered = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([rendered[0], "-" * len(rendered[0]), *rendered[1:]])


def record(name: str, figures: Mapping[str, Any], described: dict[str, Any]) -> Path:
    """Write figures and machine to `results/<name>-<machine>-<date>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{machine.kind(described)}-{datetime.now(UTC):%Y-%m-%d}.json"
    path.write_text(json.dumps(figures, indent=1, default=plain) + "\n", encoding="utf-8")
    return path


def plain(value: Any) -> Any:
    """What `json` cannot write by itself."""
    return asdict(value) if hasattr(value, "__dataclass_fields__") else str(value)


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
