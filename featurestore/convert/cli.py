"""Run the commands that make something else of a store: `compact` and `export`.

Both say what was made, as a line or as JSON; making it is left to `convert.compact` and `convert.export`.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace

from featurestore.base.arguments import count_argument
from featurestore.base.json_text import print_json
from featurestore.base.number_words import counted
from featurestore.convert import FORMATS
from featurestore.storage.user_outputs import overwrite_argument
from featurestore.url_secrets import shown

_MIB = 1 << 20


def compact_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `compact`."""
    parser.epilog = (
        "The new store holds the same rows and records where they come from; the old one stays as it is.\n\n"
        "example:\n  sparsemill compact store/ store-compact/ --part-mib 512"
    )
    parser.add_argument("store", help="directory or URL of a complete store")
    parser.add_argument("out", help="directory or URL of the new store")
    parser.add_argument(
        "--part-mib", metavar="N", type=count_argument, default=256, help="size that parts grow to (default: 256)"
    )


def compact(args: argparse.Namespace) -> int:
    """Merge small parts into a new store."""
    from featurestore.convert.compact import compact_store
    from featurestore.writing.writer import committed_units

    plan = compact_store(args.store, args.out, args.part_mib * _MIB)
    before = len(committed_units(args.store))
    if args.json:
        done = {"store": shown(args.store), "out": shown(args.out), "parts_before": before, "parts": len(plan.units)}
        return print_json({**done, "documents": plan.rows, "fingerprint": plan.fingerprint})
    what = f"{counted(plan.rows, 'document')} of {counted(before, 'part')} now in {counted(len(plan.units), 'part')}"
    print(f"{shown(args.out)}: {what}")
    return 0


def export_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `export`."""
    parser.epilog = (
        "npz: scipy.sparse.load_npz. svmlight: features count from 1. anndata: a zarr directory, which needs the\n"
        "packages of the extra `export`: pip install --editable '.[export]' in the clone.\n"
        "The first two put the documents' metadata beside the file.\n\n"
        "examples:\n"
        "  sparsemill export store/ features.npz --pool sum\n"
        "  sparsemill export store/ train.svm --format svmlight --label label --binarize 0\n"
        "  sparsemill export store/ features.zarr --format anndata --sae l12_16k"
    )
    parser.add_argument("store", help="directory or URL of a complete store")
    parser.add_argument("out", help="file to write, as a path or URL, or local directory (anndata)")
    parser.add_argument("--format", choices=FORMATS, default="npz", help="which format (default: npz)")
    parser.add_argument("--sae", metavar="NAME", help="which SAE (needed if the store has several)")
    parser.add_argument("--pool", default="max", help="which pooling, 'mean' included (default: max)")
    parser.add_argument("--binarize", metavar="T", type=float, help="1 where the pooled value is above T, else 0")
    parser.add_argument("--label", metavar="COLUMN", help="svmlight: the kept column that is the target (default: 0)")
    overwrite_argument(parser, "an export that is there already")


def export(args: argparse.Namespace) -> int:
    """Write one SAE's features in another format."""
    from featurestore.convert.export import export_store
    from featurestore.reader import FeatureStore

    store = FeatureStore.open(args.store)
    done = export_store(store, args.out, args.format, args.sae, args.pool, args.binarize, args.label, args.overwrite)
    done = replace(done, out=shown(done.out), documents=done.documents and shown(done.documents))
    if args.json:
        return print_json(asdict(done))
    print(f"{done.out}: {done.rows:,} x {done.columns:,} with {done.nnz:,} non-zeros")
    if done.documents is not None:
        print(f"{done.documents}: their metadata, in the same order")
    return 0
