"""The command `names`: what features mean in words. `import`, `fetch`, `keywords` and `list`.

What needs the first stage (evidence, sae-lens' registry) is handed in by the front door as `args.stage_one`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.json_text import print_json
from featurestore.base.text import counted, share
from featurestore.errors import NamesError, UsageError
from featurestore.names.fetching import NEURONPEDIA

if TYPE_CHECKING:
    from featurestore.evidence.records import DocumentEvidence
    from featurestore.names.importing import Imported
    from featurestore.names.keep import Kept
    from featurestore.names.which import NamedSae, RegistryId
    from featurestore.reader import FeatureStore

VERSION = 1  # of what --json prints
_STRONGEST = _RANDOM = 20  # documents of each feature that keywords come from: seconds of a small model


class StageOne(Protocol):
    """What the first stage does for this command."""

    def evidence(
        self, store: FeatureStore, doc_ids: Sequence[str], features: Sequence[tuple[str, int]]
    ) -> Iterable[DocumentEvidence]:
        """The tokens of documents with the activations of features."""

    def neuronpedia_id(self, release: str, id: str) -> str | None:
        """An SAE's id at Neuronpedia; None where sae-lens' registry knows none."""


def names_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `names`."""
    parser.epilog = (
        "examples:\n"
        "  sparsemill names import batch-*.jsonl.gz --store store/ --sae l12_16k --prefer gpt-4o-mini\n"
        "  sparsemill names fetch --store store/ --sae l12_16k\n"
        "  sparsemill names keywords store/ --sae l12_16k --feature 1234 99\n"
        "  sparsemill names list store/ --sae l12_16k --feature 1234\n\n"
        "Names are kept by the encoder's sha256 in $SPARSEMILL_CACHE/names or ~/.cache/sparsemill/names, or in --names."
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, (line, arguments, _) in _ACTIONS.items():
        arguments(actions.add_parser(name, help=line, description=line))
    for action in actions.choices.values():
        action.add_argument("--names", metavar="DIR", help="where tables of names lie (default: this machine's cache)")
        action.add_argument(
            "--json", action="store_true", default=argparse.SUPPRESS, help="print one JSON document on stdout"
        )


def names(args: argparse.Namespace) -> int:
    """Do what was asked for with names of features."""
    action: Callable[[argparse.Namespace], int] = _ACTIONS[args.action][2]
    return action(args)


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="Neuronpedia's exports, or CSV, JSON lines or Parquet")
    _which_arguments(parser, positional=False)
    _kept_arguments(parser)
    parser.add_argument("--explainer", metavar="NAME", help="who wrote the names, where the files do not say it")


def _import(args: argparse.Namespace) -> int:
    from featurestore.names.importing import read_names

    sae = _which(args, _registry_if_there(args.stage_one))
    return _keep(args, sae, read_names(args.files, sae, args.explainer, args.licence))


def _fetch_arguments(parser: argparse.ArgumentParser) -> None:
    _which_arguments(parser, positional=False)
    _kept_arguments(parser)
    parser.add_argument(
        "--id", metavar="MODEL/SOURCE", help="the SAE's id at Neuronpedia (default: as sae-lens' registry has it)"
    )
    parser.add_argument("--bucket", metavar="URL", default=NEURONPEDIA, help=f"of the exports (default: {NEURONPEDIA})")


def _fetch(args: argparse.Namespace) -> int:
    import sys

    from featurestore.names.fetching import fetch_names
    from featurestore.names.importing import read_names

    # An id that is given stands for itself; what the store says about layer and model is still compared.
    sae = _which(args, None if args.id else args.stage_one.neuronpedia_id)
    neuronpedia_id = args.id or sae.neuronpedia
    if neuronpedia_id is None:
        raise NamesError(
            f"{sae.title} has no id at Neuronpedia that sae-lens' registry knows; give --id MODEL/SOURCE, or import "
            "names from files"
        )
    with tempfile.TemporaryDirectory(prefix="sparsemill-names-") as folder:
        files = fetch_names(neuronpedia_id, Path(folder), args.bucket, lambda line: print(line, file=sys.stderr))
        read = read_names(list(map(str, files)), sae, licence=args.licence, origins=list(files.values()))
    return _keep(args, sae, read)


def _keep(args: argparse.Namespace, sae: NamedSae, read: Imported) -> int:
    from featurestore.names.keep import keep_names

    known = {name for row in read.rows for name in (row.explainer, row.method) if name}
    for name in args.prefer:
        if name not in known:
            there = ", ".join(sorted(known)[:8]) or "none"
            raise NamesError(f"--prefer: no name is by '{name}'{did_you_mean(name, known)} (explainers: {there})")
    kept = keep_names(sae.sha256, sae.d_sae, read.rows, args.names, args.prefer)
    if args.json:
        print_json({"version": VERSION, **_facts(kept, sae), "notes": list(read.notes)})
        return 0
    replaced = f", {kept.replaced:,} of them in place of earlier ones" if kept.replaced else ""
    print(f"{sae.title}: {counted(kept.added + kept.replaced, 'name')} imported{replaced}")
    named = f"{kept.features:,} of {sae.d_sae:,} features ({share(kept.features, sae.d_sae)})"
    print(f"  {named} have a name now, {counted(kept.names, 'name')} in all: {kept.path}")
    for note in read.notes:
        print(f"  note: {note}")
    return 0


def _keywords_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", help="directory or URL of a complete store that keeps its text")
    parser.add_argument("--sae", metavar="NAME", help="which SAE (needed if the store has several)")
    parser.add_argument("--feature", metavar="N", type=_number, nargs="+", required=True, help="which features")


def _keywords(args: argparse.Namespace) -> int:
    import numpy as np

    from featurestore.index.firing import firing_documents
    from featurestore.names.keep import keep_names
    from featurestore.names.keywords import keyword_name, keywords
    from featurestore.names.table import NameRow
    from featurestore.names.which import sae_of_store
    from featurestore.reader import FeatureStore
    from featurestore.urls import shown

    store = FeatureStore.open(args.store)
    sae, column = sae_of_store(store, args.sae), store.sae(args.sae).name
    features = _checked(args.feature, sae)
    firing = firing_documents(store, column, features, _STRONGEST, _RANDOM)
    rows = np.unique(np.concatenate([np.concatenate([one.strongest, one.random]) for one in firing.values()]))
    ids = store.documents().select("doc_id").collect()["doc_id"].gather(rows).to_list()
    documents = list(args.stage_one.evidence(store, ids, [(column, feature) for feature in features])) if ids else []
    found = keywords(documents, column, features)
    named = {feature: name for feature in features if (name := keyword_name(feature, found[feature])) is not None}
    origin = f"{shown(store.uri)} ({store.fingerprint[:12]})"
    kept = [NameRow(name.feature, name.text, name.source, name.explainer, origin=origin) for name in named.values()]
    if kept:
        keep_names(sae.sha256, sae.d_sae, kept, args.names)
    problems = [document.problem for document in documents if document.problem is not None]
    notes = [f"{counted(len(problems), 'document')}: {problems[0]}"] if problems else []
    if args.json:
        facts = [
            {
                "feature": feature,
                "name": named[feature].text if feature in named else None,
                "documents": firing[feature].n_documents,
                "keywords": [asdict(word) for word in found[feature]],
            }
            for feature in features
        ]
        print_json({"version": VERSION, "sae": column, "sha256": sae.sha256, "features": facts, "notes": notes})
        return 0
    for feature in features:
        n = firing[feature].n_documents
        nothing = "fires in no document" if not n else f"no word distinguishes the {counted(n, 'document')} it fires in"
        print(f"{column}:{feature}  {named[feature].shown() if feature in named else nothing}")
    for note in notes:
        print(f"note: {note}")
    return 0


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    _which_arguments(parser, positional=True)
    parser.add_argument("--feature", metavar="N", type=_number, nargs="+", help="every name of these features")
    parser.add_argument("--prefer", metavar="EXPLAINER", nargs="+", default=[], help="whose names come first")
    parser.add_argument("--top", metavar="K", type=_number, default=20, help="features to list (default: 20)")


def _list(args: argparse.Namespace) -> int:
    from featurestore.names.table import NameTable

    sae = _which(args)
    table = NameTable.open(sae.sha256, sae.d_sae, args.names)
    explainers = [
        {"source": source, "explainer": explainer, "method": method, "names": n}
        for (source, explainer, method), n in table.explainers().items()
    ]
    if args.feature is not None:
        rows = list(table.names(_checked(args.feature, sae)))
        rows.sort(key=lambda row: (args.feature.index(row.feature), table.rank(row, (*args.prefer, *table.prefer))))
    else:
        rows = list(table.best(table.features()[: args.top], args.prefer).values())
    if args.json:
        facts = {"sha256": sae.sha256, "d_sae": sae.d_sae, "table": str(table.path), "names": len(table)}
        more = {"features": len(table.features()), "prefer": list(table.prefer), "explainers": explainers}
        print_json({"version": VERSION, **facts, **more, "rows": [asdict(row) for row in rows]})
        return 0
    if not len(table):
        print(f"{sae.title}: nothing is named yet; `sparsemill names import`, `fetch` or `keywords` name features")
        return 0
    print(f"{sae.title}: {len(table.features()):,} of {sae.d_sae:,} features have a name: {table.path}")
    for one in explainers:
        by = " ".join(str(one[key]) for key in ("explainer", "method") if one[key])
        print(f"  {one['source']:<9} {counted(int(one['names'] or 0), 'name')}{f' by {by}' if by else ''}")
    for row in rows:
        print(f"  {row.feature:>9}  {row.shown()}")
    for feature in args.feature or ():
        if all(row.feature != feature for row in rows):
            print(f"  {feature:>9}  has no name")
    return 0


def _which_arguments(parser: argparse.ArgumentParser, positional: bool) -> None:
    """Which SAE: of a store, or by its hash."""
    if positional:
        parser.add_argument("store", nargs="?", help="directory or URL of a store")
    else:
        parser.add_argument("--store", help="directory or URL of a store that the SAE made")
    parser.add_argument("--sae", metavar="NAME", help="its name in the store (needed if there are several)")
    parser.add_argument("--sha256", metavar="HEX", help="of the encoder, in place of a store")
    parser.add_argument("--width", metavar="N", type=_number, help="of the SAE, with --sha256")


def _kept_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prefer", metavar="EXPLAINER", nargs="+", default=[], help="whose names come first from now on, best first"
    )
    parser.add_argument("--licence", metavar="TEXT", help="of the names, to be recorded where the files do not say it")


def _which(args: argparse.Namespace, registry_id: RegistryId | None = None) -> NamedSae:
    from featurestore.names.which import NamedSae, sae_of_store
    from featurestore.reader import FeatureStore

    if (args.store is None) == (args.sha256 is None):
        raise UsageError("say which SAE by a store or by --sha256 and --width, one of them")
    if args.store is not None:
        if args.width is not None:
            raise UsageError("--width goes with --sha256; a store knows its own, so leave it out")
        return sae_of_store(FeatureStore.open(args.store, partial=True), args.sae, registry_id)
    if args.width is None or args.width < 1 or args.sae is not None:
        raise UsageError("--sha256 needs the SAE's --width, and no --sae")
    return NamedSae(args.sha256.lower(), args.width, f"the SAE {args.sha256[:12]}")


def _registry_if_there(stage_one: StageOne) -> RegistryId:
    """sae-lens' registry as far as sae-lens is there: an import only compares what is known."""

    def registry_id(release: str, id: str) -> str | None:
        try:
            return stage_one.neuronpedia_id(release, id)
        except ModuleNotFoundError:
            return None

    return registry_id


def _checked(features: Sequence[int], sae: NamedSae) -> list[int]:
    for feature in features:
        if feature >= sae.d_sae:
            raise NamesError(f"{sae.title} has no feature {feature}; it has features 0 to {sae.d_sae - 1}")
    return list(dict.fromkeys(features))


def _facts(kept: Kept, sae: NamedSae) -> dict[str, Any]:
    return {**asdict(kept), "path": str(kept.path), "sha256": sae.sha256, "d_sae": sae.d_sae}


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise argparse.ArgumentTypeError(f"must be a whole number, not {text[:40]!r}")
    return int(text)


_ACTIONS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]] = {
    "import": ("names that others wrote, from files", _import_arguments, _import),
    "fetch": ("names that Neuronpedia has, from its public bucket", _fetch_arguments, _fetch),
    "keywords": ("names from evidence: the words that features mark", _keywords_arguments, _keywords),
    "list": ("what is named, and how", _list_arguments, _list),
}
