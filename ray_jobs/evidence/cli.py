"""Parse and run the command `tokens`: where in its documents a feature fires."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from featurestore.base.json_text import print_json
from featurestore.base.terminal import say
from featurestore.errors import StoreError

if TYPE_CHECKING:
    from featurestore.evidence.records import DocumentEvidence
    from featurestore.reader import FeatureStore

VERSION = 1  # of the JSON document
STRONGEST = 3  # features of each SAE that are shown of a document where none is asked for
_WIDEST = 120  # columns, in pipes and files too: longer lines of running text are hard to read


def tokens_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `tokens`."""
    from featurestore.base.arguments import feature_argument

    parser.epilog = (
        "examples:\n"
        "  sparsemill tokens store/ --doc reviews.jsonl:17                       its strongest features\n"
        "  sparsemill tokens store/ --doc 17 --doc 31 --feature l12_16k:1234     one feature in two documents\n"
        "  sparsemill tokens store/ --doc 17 --feature l12_16k:1234 --json\n"
        "\n"
        "Only these documents are run again, through the bundle that the store names: the one on this machine, or one\n"
        "built again from its model and SAEs. Texts come from the store, or from the corpus of its job. A token that\n"
        "fires is shown as [token|activation]; colours are left out in pipes and where NO_COLOR is set."
    )
    parser.add_argument("store", help="directory or URL of the store")
    parser.add_argument("--doc", metavar="ID", action="append", required=True, help="a document; may be repeated")
    parser.add_argument(
        "--feature",
        metavar="[SAE:]N",
        type=feature_argument,
        action="append",
        help=f"a feature; may be repeated (default: the {STRONGEST} strongest of each document and SAE)",
    )


def tokens(args: argparse.Namespace) -> int:
    """Print the tokens of documents with the activations of features."""
    from featurestore.base.terminal import has_colours, page_width
    from featurestore.evidence.page import page
    from featurestore.evidence.records import to_json
    from featurestore.reader import FeatureStore
    from ray_jobs.evidence.compute import compute_evidence
    from ray_jobs.quiet import silence_libraries

    silence_libraries()
    store = FeatureStore.open(args.store, partial=True)
    doc_ids = list(dict.fromkeys(args.doc))
    wanted = {doc_id: features_to_show(store, doc_id, args.feature) for doc_id in doc_ids}
    documents = list(compute_evidence(store, wanted, say=say))
    refuse_nothing(documents)
    if args.json:
        print_json({"version": VERSION, "documents": [to_json(document) for document in documents]})
        return 0
    width = min(page_width(), _WIDEST)
    for number, document in enumerate(documents):
        if number:
            print()
        for line in page(document, width, has_colours(sys.stdout)):
            print(line)
    return 0


def refuse_nothing(documents: Sequence[DocumentEvidence]) -> None:
    """StoreError if not one of the documents could be shown."""
    problems = [document.problem for document in documents if document.problem is not None]
    if problems and len(problems) == len(documents) and not any(document.tokens for document in documents):
        raise StoreError(problems[0])


def features_to_show(
    store: FeatureStore, doc_id: str, asked: Sequence[tuple[str | None, int]] | None
) -> list[tuple[str, int]]:
    """The features to show of a document, each once: those asked for, or its strongest."""
    if asked or not store.schema.saes:  # of a store without any it says so
        asked = asked or [(None, 0)]
        return list(dict.fromkeys((store.sae(sae).name, feature) for sae, feature in asked))
    from featurestore.index.lookup import document_view

    top = document_view(store, doc_id, STRONGEST).top
    return [(sae, feature.feature) for sae, features in top.items() for feature in features]
