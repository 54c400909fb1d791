"""The command `names`: what features mean in words, and its actions `import`, `fetch` and `list`.

What needs the first stage (evidence, sae-lens' registry, text generators) is handed in by the front door as
`args.stage_one`, an `evidence_cli.StageOne`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurestore.base.arguments import count_argument
from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.json_text import print_json
from featurestore.base.number_words import counted, share
from featurestore.base.terminal import print_page
from featurestore.errors import NamesError, UsageError
from featurestore.names.arguments import VERSION, asked, checked, feature_option
from featurestore.names.evidence_cli import StageOne, generate, generate_arguments, keywords, keywords_arguments
from featurestore.names.fetching import NEURONPEDIA
from featurestore.url_secrets import without_secrets

if TYPE_CHECKING:
    from featurestore.names.importing import Imported
    from featurestore.names.merging import Kept
    from featurestore.names.which_sae import NamedSae, RegistryId


def names_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `names`."""
    parser.epilog = (
        "examples:\n"
        "  sparsemill names import batch-*.jsonl.gz --store store/ --sae l12_16k --prefer gpt-4o-mini\n"
        "  sparsemill names fetch --store store/ --sae l12_16k\n"
        "  sparsemill names keywords store/ --feature l12_16k:1234 --feature l12_16k:99\n"
        "  sparsemill names generate store/ --feature l12_16k:1234 --model models/gemma-3-270m-it\n"
        "  sparsemill names list store/ --feature l12_16k:1234\n\n"
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
    from featurestore.names.merging import keep_names

    _check_preferred(args.prefer, {name for row in read.rows for name in (row.explainer, row.method) if name})
    kept = keep_names(sae.sha256, sae.d_sae, read.rows, args.names, args.prefer)
    if args.json:
        print_json({"version": VERSION, **_facts(kept, sae), "notes": list(read.notes)})
        return 0
    replaced = f", {kept.replaced:,} of them in place of earlier ones" if kept.replaced else ""
    print_page(f"{sae.title}: {counted(kept.added + kept.replaced, 'name')} imported{replaced}")
    named = f"{kept.features:,} of {sae.d_sae:,} features ({share(kept.features, sae.d_sae)})"
    print_page(f"  {named} have a name now, {counted(kept.names, 'name')} in all: {kept.path}")
    for note in read.notes:
        print_page(f"  note: {note}")
    return 0


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    _which_arguments(parser, positional=True)
    feature_option(parser, "every name of this feature")
    parser.add_argument("--prefer", metavar="EXPLAINER", nargs="+", default=[], help="whose names come first")
    parser.add_argument("--top", metavar="K", type=count_argument, default=20, help="features to list (default: 20)")


def _list(args: argparse.Namespace) -> int:
    from featurestore.names.table import NameTable

    sae = _which(args)
    table = NameTable.open(sae.sha256, sae.d_sae, args.names)
    explainers = [
        {"source": source, "explainer": explainer, "method": method, "names": n}
        for (source, explainer, method), n in table.explainers().items()
    ]
    features = checked(asked(args)[1], sae)
    _check_preferred(args.prefer, {str(one[key]) for one in explainers for key in ("source", "explainer", "method")})
    shown = features or table.features()[: args.top]
    rows = sorted(
        table.names(shown),
        key=lambda row: (shown.index(row.feature), table.rank(row, (*args.prefer, *table.prefer))),
    )
    if not features:  # one name for each
        rows = list({row.feature: row for row in reversed(rows)}.values())[::-1]
    if args.json:
        facts = {"sha256": sae.sha256, "d_sae": sae.d_sae, "table": str(table.path), "names": len(table)}
        more = {"features": len(table.features()), "prefer": list(table.prefer), "explainers": explainers}
        plain = [{**asdict(row), "origin": row.origin and without_secrets(row.origin)} for row in rows]
        print_json({"version": VERSION, **facts, **more, "rows": plain})
        return 0
    if not len(table):
        print_page(f"{sae.title}: nothing is named yet; `sparsemill names import`, `fetch` or `keywords` name features")
        return 0
    print_page(f"{sae.title}: {len(table.features()):,} of {sae.d_sae:,} features have a name: {table.path}")
    for one in explainers:
        by = " ".join(str(one[key]) for key in ("explainer", "method") if one[key])
        print_page(f"  {one['source']:<9} {counted(int(one['names'] or 0), 'name')}{f' by {by}' if by else ''}")
    for row in rows:
        print_page(f"  {row.feature:>9}  {row.shown()}")
    for feature in features:
        if all(row.feature != feature for row in rows):
            print_page(f"  {feature:>9}  has no name")
    return 0


def _which_arguments(parser: argparse.ArgumentParser, positional: bool) -> None:
    """Which SAE: of a store, or by its hash."""
    if positional:
        parser.add_argument("store", nargs="?", help="directory or URL of a store")
    else:
        parser.add_argument("--store", help="directory or URL of a store that the SAE made")
    parser.add_argument("--sae", metavar="NAME", help="its name in the store (needed if there are several)")
    parser.add_argument("--sha256", metavar="HEX", help="of the encoder, in place of a store")
    parser.add_argument("--width", metavar="N", type=count_argument, help="of the SAE, with --sha256")


def _kept_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--prefer", metavar="EXPLAINER", nargs="+", default=[], help="whose names come first from now on, best first"
    )
    parser.add_argument("--licence", metavar="TEXT", help="of the names, to be recorded where the files do not say it")


def _which(args: argparse.Namespace, registry_id: RegistryId | None = None) -> NamedSae:
    from featurestore.names.which_sae import NamedSae, sae_of_store
    from featurestore.reader import FeatureStore

    if (args.store is None) == (args.sha256 is None):
        raise UsageError("say which SAE by a store or by --sha256 and --width, one of them")
    if args.store is not None:
        if args.width is not None:
            raise UsageError("--width goes with --sha256; a store knows its own, so leave it out")
        return sae_of_store(FeatureStore.open(args.store, partial=True), asked(args)[0], registry_id)
    if args.width is None or asked(args)[0] is not None:
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


def _check_preferred(prefer: Sequence[str], known: Collection[str]) -> None:
    """Refuse explainers that nothing is by."""
    for name in prefer:
        if name not in known:
            there = ", ".join(sorted(known)[:8]) or "none"
            raise NamesError(f"--prefer: no name is by '{name}'{did_you_mean(name, known)} (explainers: {there})")


def _facts(kept: Kept, sae: NamedSae) -> dict[str, Any]:
    return {**asdict(kept), "path": str(kept.path), "sha256": sae.sha256, "d_sae": sae.d_sae}


_ACTIONS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]] = {
    "import": ("names that others wrote, from files", _import_arguments, _import),
    "fetch": ("names that Neuronpedia has, from its public bucket", _fetch_arguments, _fetch),
    "keywords": ("names from evidence: the words that features mark", keywords_arguments, keywords),
    "generate": ("names by a text generator of this machine", generate_arguments, generate),
    "list": ("what is named, and how", _list_arguments, _list),
}
