"""Claim the directory of a study: the same study goes on there, another one is refused with what differs.

A study is known by its store, classes and split: all of it is in `split.parquet`, whose footer says what the split was
drawn from. That file is written before anything is computed, so that a study that was stopped is known too. Once it is
finished it is known by its methods and by how its model files decide as well (`training.output.another_study`). Further
features, baselines, probes and regimes do not make it another study, for a grid grows. What is computed is kept under a
hash of what decided it (`training.evaluation`), and never in the way of anything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from featurestore.base.differences import differences, listed
from featurestore.base.json_text import json_text
from featurestore.errors import StudyError, UsageError
from featurestore.evidence.cache import EVIDENCE
from featurestore.storage.files import atomic_write, filesystem, list_files, reached, read_bytes, read_json, shown
from featurestore.storage.user_outputs import INSIST, refuse_in_store
from training.documents.labels import StudyData
from training.documents.split import Split, split_table
from training.output.another_study import changes_of_decisions
from training.spec import SplitSpec, StudySpec

if TYPE_CHECKING:
    import polars as pl

SPLIT, SUMMARY = "split.parquet", "results.json"
WRITTEN = (
    "results.parquet",
    "predictions.parquet",
    "folds.parquet",
    "regimes.parquet",
    "slices.parquet",
    "explanation.json",
    "report.html",
    "models",
    EVIDENCE,
)
DIRECTORIES = ("models", EVIDENCE)
_MARK = b"sparsemill.study"  # in the footer of split.parquet


def claim_out(
    spec: StudySpec,
    fingerprint: str,
    data: StudyData,
    splits: Sequence[Split],
    overwrite: bool,
    made: Mapping[str, str],
) -> None:
    """Make the directory of a study its own, before hours are spent; `split.parquet` is written.

    Evidence that was kept while the study's text was not private is deleted once it is.

    Args:
        spec: The study.
        fingerprint: Of its store.
        data: Its documents.
        splits: Its splits, those of regimes too.
        overwrite: Whether results of another study there may be replaced.
        made: What `another_study.made_of` says of its methods.

    Raises:
        StudyError: It holds a store, another study (the message says what differs), or files of others under the names
            of ours; or it cannot be made.
    """
    fs, root = reached(spec.out)
    try:
        refuse_in_store(spec.out)
    except UsageError as exc:
        raise StudyError(f"out: {exc}") from None
    try:
        there = list_files(fs, root)
    except OSError as exc:
        raise unwritable(spec.out, exc) from None
    if "store.json" in there:
        raise StudyError(f"out: {shown(spec.out)} is a feature store; choose another directory for the results")
    about, table = _about(spec, fingerprint), split_table(data, splits)
    problem = _problem(spec, there, about, table, made)
    if problem is not None and not overwrite:
        raise StudyError(f"out: {shown(spec.out)} {problem}; give the study another 'out', {INSIST}")
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({_MARK: json_text(about, ascii=True).encode()}), sink, compression="zstd"
    )
    try:
        fs.create_dir(root, recursive=True)
        # What is left of another study must not be taken for results of this one, and evidence holds text.
        stale = (SUMMARY, *WRITTEN) if problem is not None else (EVIDENCE,) if spec.private else ()
        for name in stale:
            if name in there:
                (fs.delete_dir if name in DIRECTORIES else fs.delete_file)(f"{root}/{name}")
        atomic_write(fs, f"{root}/{SPLIT}", sink.getvalue())
    except OSError as exc:
        raise unwritable(spec.out, exc) from None


def unwritable(out: str, exc: OSError) -> StudyError:
    """What to say when results cannot be written."""
    return StudyError(f"out: {shown(out)} cannot be written ({exc.strerror or exc}); choose another directory")


def _about(spec: StudySpec, fingerprint: str) -> dict[str, Any]:
    """What a study's split was drawn from."""
    return {
        "store": {"uri": shown(spec.store), "fingerprint": fingerprint},
        "label": spec.label if isinstance(spec.label, str) else spec.label.column,
        "split": spec.split.model_dump(mode="json"),
    }


def _problem(
    spec: StudySpec, there: Mapping[str, int], about: Mapping[str, Any], table: pa.Table, made: Mapping[str, str]
) -> str | None:
    """Why the results of a study must not go into a directory; None if they may."""
    if SPLIT not in there and SUMMARY not in there:
        strange = next((name for name in WRITTEN if name in there), None)
        return None if strange is None else f"holds '{strange}', and no study that it belongs to"
    fs, root = filesystem(spec.out)
    reading = SUMMARY
    try:
        summary = read_json(fs, f"{root}/{SUMMARY}") if SUMMARY in there else None
        reading = SPLIT if SPLIT in there else SUMMARY
        before = _read_split(fs, root) if SPLIT in there else None
        mark = (before.schema.metadata or {}).get(_MARK) if before is not None else None
        old = json.loads(mark) if mark else _of_summary(summary)
        changes = _changes(old, about) or ([] if before is None else _row_changes(before, table))
        reading = SUMMARY
        changes = changes or ([] if summary is None else changes_of_decisions(summary, spec, made))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException):
        return f"holds a '{reading}' that is of no study"
    return f"holds another study: {listed(changes)}" if changes else None


def _read_split(fs: Any, root: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(read_bytes(fs, f"{root}/{SPLIT}")))


def _of_summary(summary: Any) -> dict[str, Any]:
    """The same as `_about`, of a study by an earlier version."""
    spec = summary["spec"]
    label = spec["label"] if isinstance(spec["label"], str) else spec["label"]["column"]
    store = {"uri": spec["store"], "fingerprint": summary["store"]["fingerprint"]}
    return {"store": store, "label": label, "split": spec["split"]}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs in the settings."""
    changes = []
    if old["store"]["fingerprint"] != new["store"]["fingerprint"]:
        before, now = (f"{side['store']['uri']} ({side['store']['fingerprint'][:8]})" for side in (old, new))
        changes.append(f"store {before} -> {now}")
    return changes + differences(
        {"label": old["label"], "split": _completed(old["split"])}, {"label": new["label"], "split": new["split"]}
    )


def _completed(split: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a split with those that came later at their defaults."""
    try:
        return SplitSpec.model_validate(split).model_dump(mode="json")
    except ValidationError:
        return split


def _row_changes(old: pa.Table, new: pa.Table) -> list[str]:
    """What differs in the documents, their classes and sides, and which regimes would be gone."""
    before, now = (_by_condition(table) for table in (old, new))
    if not before[""].equals(now[""]):
        return [_what_moved(before[""], now[""])]
    gone = [f"regime {name} -> (none)" for name in before if name not in now]
    return gone + [
        f"regime {name} is of other documents" for name in before if name in now and not before[name].equals(now[name])
    ]


def _by_condition(table: pa.Table) -> dict[str, pl.DataFrame]:
    import polars as pl

    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return {str(name): rows for (name,), rows in frame.partition_by("condition", as_dict=True).items()}


def _what_moved(old: pl.DataFrame, new: pl.DataFrame) -> str:
    """In words how the documents of two splits differ."""
    ids, now = (frame["doc_id"].unique() for frame in (old, new))
    gone, come = (len(a.filter(~a.is_in(b.implode()))) for a, b in ((ids, now), (now, ids)))
    if gone or come:
        return f"documents {len(ids):,} -> {len(now):,} ({gone:,} gone, {come:,} new)"
    joined = old.join(new, on=["doc_id", "seed", "outer"], suffix="_now", nulls_equal=True)
    relabelled = joined.filter(joined["label"] != joined["label_now"])["doc_id"].n_unique()
    if relabelled:
        return f"label of {relabelled:,} of {len(ids):,} documents"
    moved = joined.filter(~joined["fold"].eq_missing(joined["fold_now"]) | (joined["role"] != joined["role_now"]))
    return f"side of the split of {moved['doc_id'].n_unique():,} of {len(ids):,} documents"
