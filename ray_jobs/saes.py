"""Say which SAEs of sae-lens' registry can be run, and how to name them in a job: the command `saes`.

Nothing is downloaded, and neither torch nor sae-lens is imported: it answers in about a second.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.hostile_text import visible
from featurestore.base.json_text import print_json
from featurestore.base.number_words import counted
from featurestore.base.terminal import print_facts, table_lines
from featurestore.errors import UsageError
from ray_jobs.backbone.sites import SITES
from ray_jobs.prepare.models import plain_name
from ray_jobs.prepare.registry import RegisteredSae, features_of, registered_saes, width_word

SHOWN = 60
"""SAEs, or releases, that are listed one by one; of more there is a summary, which still fits a few screens."""


def saes_parser(parser: argparse.ArgumentParser) -> None:
    """Arguments of `saes`."""
    parser.epilog = (
        "examples:\n  sparsemill saes --model gemma-2-9b-it\n"
        "  sparsemill saes --model gemma-2-2b --site resid_post --layer 12 --width 16k\n"
        "  sparsemill saes --release gpt2-small-res-jb\n  sparsemill saes --refused --json\n\n"
        f"Sites are {', '.join(SITES)}.\n"
        "What only an SAE's files say (a -, and the architecture where a release keeps cfg.json or config.json) is\n"
        "checked when they are fetched, before its weights are."
    )
    parser.add_argument("--model", metavar="M", help="SAEs of this model: gemma-2-9b-it, google/gemma-2-9b-it, gpt2")
    parser.add_argument("--site", metavar="S", help="SAEs that read this site of a layer, e.g. resid_post")
    parser.add_argument("--layer", metavar="L", type=int, help="SAEs that read this layer")
    parser.add_argument("--width", metavar="W", help="SAEs of so many features: 16k, 131k, 1m or 24576")
    parser.add_argument("--release", metavar="R", help="SAEs of this release")
    parser.add_argument("--refused", action="store_true", help="only those that cannot be run, each with its reason")


def saes(args: argparse.Namespace) -> int:
    """List SAEs, or count them where they are too many to list."""
    rows = _chosen(args)
    if args.json:
        return print_json({"saes": [asdict(row) for row in rows]})
    if not rows:
        print("none is refused")
        return 0
    releases = list(dict.fromkeys(row.release for row in rows))
    if len(rows) <= SHOWN:
        _print_each(rows)
    elif len(releases) <= SHOWN:
        _print_counts(rows, "release", lambda row: row.release)
    else:
        _print_counts(rows, "model", lambda row: row.model)
    print()
    print_facts(_closing(rows))
    return 0


def _chosen(args: argparse.Namespace) -> list[RegisteredSae]:
    """The SAEs that the arguments leave.

    Raises:
        UsageError: One of them leaves none.
    """
    rows = list(registered_saes())
    if args.release is not None:
        rows = _kept(rows, lambda row: row.release == args.release) or _none(
            f"there is no release {args.release!r} in sae-lens' registry", args.release, (row.release for row in rows)
        )
    if args.model is not None:
        there = sorted({row.model for row in rows})
        short = [name.rpartition("/")[2] for name in there]
        rows = _kept(rows, lambda row: plain_name(row.model) == plain_name(args.model)) or _none(
            f"no SAE {_of(args)}is of a model {args.model!r}", args.model, there if "/" in args.model else short
        )
    if args.site is not None:
        if args.site not in SITES:
            _none(f"there is no site {args.site!r}", args.site, SITES)
        rows = _kept(rows, lambda row: row.site == args.site) or _none(
            f"none of these SAEs reads {args.site}; they read {_listed(row.site for row in rows)}"
        )
    if args.layer is not None:
        rows = _kept(rows, lambda row: row.layer == args.layer) or _none(
            f"none of these SAEs reads layer {args.layer}; they read layers {_span(row.layer for row in rows)}"
        )
    if args.width is not None:
        width = features_of(args.width)
        if width is None:
            raise UsageError(f"--width is a number of features, as 16k, 131k, 1m or 24576, not {args.width!r}")
        rows = _kept(rows, lambda row: row.d_sae == width) or _none(
            f"none of these SAEs has {width:,} features; they have {_widths(rows)}"
        )
    return [row for row in rows if not (args.refused and row.accepted)]


def _kept(rows: list[RegisteredSae], keep: Callable[[RegisteredSae], bool]) -> list[RegisteredSae]:
    return [row for row in rows if keep(row)]


def _none(sentence: str, name: str | None = None, names: Iterable[str] = ()) -> list[RegisteredSae]:
    """Refuse an argument that leaves nothing."""
    if name is not None:
        sentence += did_you_mean(name, names) or "; sparsemill saes lists what there is"
    raise UsageError(sentence)


def _of(args: argparse.Namespace) -> str:
    return "" if args.release is None else f"of the release {args.release!r} "


def _print_each(rows: Sequence[RegisteredSae]) -> None:
    """A table for each release, headed by what its job says, release and model, and by what all of its SAEs share."""
    groups: dict[tuple[str, str], list[RegisteredSae]] = {}
    for row in rows:
        groups.setdefault((row.release, row.model), []).append(row)
    for number, ((release, model), group) in enumerate(groups.items()):
        pages = {row.neuronpedia.partition("/")[0] for row in group if row.neuronpedia}
        page = f"{pages.pop()}/" if len(pages) == 1 else ""
        columns = {
            "id": [row.id for row in group],
            "site": [row.site or "-" for row in group],
            "layer": ["-" if row.layer is None else str(row.layer) for row in group],
            "width": ["-" if row.d_sae is None else f"{row.d_sae:,}" for row in group],
            "L0": ["-" if row.l0 is None else f"{row.l0:g}" for row in group],
            f"Neuronpedia {page}".strip(): [(row.neuronpedia or "-").removeprefix(page) for row in group],
            "verdict": [_verdict(row) for row in group],
        }
        shared = [columns.pop(name)[0] for name in ("site", "verdict") if len(set(columns[name])) == 1]
        if number:
            print()
        print(visible(f"release {release}, model {model}" + (f": {', '.join(shared)}" if shared else "")))
        left = [place for place, name in enumerate(columns) if name not in ("layer", "width", "L0")]
        print("\n".join(table_lines([tuple(columns), *zip(*columns.values(), strict=True)], left=left)))


def _verdict(row: RegisteredSae) -> str:
    if not row.accepted:
        return "refused"
    return "runs" if row.needs is None else f"with {row.needs}: true"


def _print_counts(rows: Sequence[RegisteredSae], what: str, key: Callable[[RegisteredSae], str]) -> None:
    """A line for each release or model."""
    groups: dict[str, list[RegisteredSae]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    cells = [(what, "SAEs", "run", "layers", "widths", "sites" if what == "release" else "releases")]
    for name in sorted(groups, key=str.lower):
        group = groups[name]
        last = _listed(row.site for row in group) if what == "release" else str(len({row.release for row in group}))
        runs = sum(row.accepted for row in group)
        layers = _span(row.layer for row in group)
        cells.append((name, f"{len(group):,}", f"{runs:,}", layers, _widths(group, short=True), last))
    print("\n".join(table_lines(cells, left=(0, 4, 5))))


def _closing(rows: Sequence[RegisteredSae]) -> list[tuple[str, str]]:
    run = sum(row.accepted for row in rows)
    pickled = sum(row.accepted and row.needs is not None for row in rows)
    told = f"{counted(len(rows), 'SAE')}, of which {run:,} can be run"
    facts = [("in all", told + (f" ({pickled:,} with allow_pickle: true)" if pickled else ""))]
    facts += [("refused", f"{n:,}: {why}") for why, n in Counter(row.reason for row in rows if row.reason).items()]
    if len(rows) > SHOWN:
        facts.append(
            ("narrow by", f"--model, --site, --layer, --width, --release; up to {SHOWN} are listed one by one")
        )
    return facts


def _listed(names: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(name or "-" for name in names))


def _span(layers: Iterable[int | None]) -> str:
    """`0..25`, or `5, 12, 19`."""
    there = sorted({layer for layer in layers if layer is not None})
    if len(there) > 2 and there[-1] - there[0] == len(there) - 1:
        return f"{there[0]}..{there[-1]}"
    return ", ".join(map(str, there[:6])) + (f", ... {there[-1]}" if len(there) > 6 else "")


def _widths(rows: Sequence[RegisteredSae], short: bool = False) -> str:
    """The widths of SAEs in their usual words: `16k, 65k, 1m`, or, for a cell of a table, `16k..1m`."""
    words = [width_word(width) for width in sorted({row.d_sae for row in rows if row.d_sae is not None})]
    if short and len(words) > 3:
        return f"{words[0]}..{words[-1]}"
    return ", ".join(words) or "-"
