"""Find the texts of a store's documents: in the column that the store keeps, or else in the corpus of its job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.base.number_words import first_line
from featurestore.errors import SparsemillError
from featurestore.tables.values import document_turns
from featurestore.url_secrets import shown

if TYPE_CHECKING:
    from featurestore.format.store_plan import StorePlan
    from featurestore.reader import FeatureStore


@dataclass(frozen=True)
class StoredDocument:
    """What a store says of one document.

    Attributes:
        n_tokens: Tokens that were pooled.
        error: Why it has no features, or None.
        text: Its text; None where it has an error or the text is nowhere to be had.
        missing: A sentence that says why there is no text, or None.
    """

    n_tokens: int
    error: str | None
    text: str | None = None
    missing: str | None = None


def stored_documents(
    store: FeatureStore, doc_ids: Sequence[str], texts: Mapping[str, str] | None = None
) -> dict[str, StoredDocument]:
    """Documents of a store with their texts.

    Args:
        store: An open store.
        doc_ids: Which documents.
        texts: Texts by id that are at hand; only the others are looked up.

    Returns:
        Id -> document, in the order asked for.

    Raises:
        StoreError: An id is not in the store, or a part is damaged.
    """
    position = store.positions(doc_ids)
    column = kept_text_column(store.plan)
    texts = None if _of_images(store.plan) else texts  # the prompts of images are not what was pooled
    found = _rows(store, position, column)
    places = list(zip(doc_ids, position.tolist(), strict=True))
    given = {row: texts[doc_id] for doc_id, row in places if texts and doc_id in texts}
    kept = {row: text for row, (_, _, _, text) in found.items() if text is not None}
    lacking = [row for row, (_, _, error, _) in found.items() if error is None and row not in given | kept]
    read, missing = _corpus_texts(store, lacking, [found[row][0] for row in lacking])
    known = read | _as_read(store.plan, kept | given)
    documents = {}
    for doc_id, row in places:
        _, n_tokens, error, _ = found[row]
        text = None if error is not None else known.get(row)
        documents[doc_id] = StoredDocument(n_tokens, error, text, missing if error is None and text is None else None)
    return documents


def _as_read(plan: StorePlan, texts: Mapping[int, str]) -> dict[int, str]:
    """Texts as documents have them: a kept conversation may have more keys than were read, in another order."""
    corpus = plan.spec.get("corpus")
    if not isinstance(corpus, Mapping) or corpus.get("messages") is None:
        return dict(texts)
    read = {row: document_turns(text, str(corpus["messages"]))[0] for row, text in texts.items()}
    return {row: text for row, text in read.items() if text is not None}


def _of_images(plan: StorePlan) -> bool:
    return bool((plan.identity.get("corpus") or {}).get("image"))


def kept_text_column(plan: StorePlan) -> str | None:
    """The kept column that has the documents' texts or conversations, or None; None too where they are images."""
    if _of_images(plan):
        return None
    corpus = plan.spec.get("corpus")
    name = corpus.get("text") if isinstance(corpus, Mapping) else None
    # Texts that are all numbers are kept as numbers, which need not be written as they were.
    return name if (name, "string") in plan.schema.keep else None


def _rows(
    store: FeatureStore, position: np.ndarray, column: str | None
) -> dict[int, tuple[str, int, str | None, str | None]]:
    """Row -> (id, n_tokens, error, kept text) of some rows of a store."""
    mask = np.zeros(len(store), dtype=bool)
    mask[position] = True
    columns = ["doc_id", "n_tokens", "error", *([column] if column else [])]
    found = {}
    for _, first, batch in store.groups(columns, mask):
        for at in np.flatnonzero(mask[first : first + batch.num_rows]).tolist():
            row: dict[str, Any] = {name: batch.column(name)[at].as_py() for name in columns}
            found[first + at] = (row["doc_id"], row["n_tokens"], row["error"], row[column] if column else None)
    return found


def _corpus_texts(
    store: FeatureStore, rows: Sequence[int], doc_ids: Sequence[str]
) -> tuple[dict[int, str], str | None]:
    """Row of the store -> text, from the corpus; and why there is none."""
    if not rows:
        return {}, None
    if _of_images(store.plan):
        return {}, "it is an image, and tokens can be shown of texts only"
    from ray_jobs.corpus.find import find_texts
    from ray_jobs.spec import CorpusSpec, job_from_mapping

    plan = store.plan
    # An incomplete store consists of the units that are there, and the corpus of all.
    at = np.concatenate([np.arange(*plan.units[unit]) for unit in store.units])
    try:
        corpus: CorpusSpec = job_from_mapping(plan.spec, "/", f"the job in {shown(store.uri)}").corpus
        texts = find_texts(corpus, plan.identity["corpus"]["files"], at[list(rows)].tolist(), doc_ids)
        return dict(zip(rows, texts, strict=True)), None
    except (SparsemillError, OSError, KeyError, TypeError, ValueError) as exc:
        reason = f"store.json lacks {exc}" if isinstance(exc, KeyError) else first_line(exc)
        return {}, (
            f"{shown(store.uri)} does not keep the text of its documents (corpus.keep), and its corpus cannot give it: "
            f"{reason}"
        )
