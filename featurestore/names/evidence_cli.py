"""`names keywords` and `names generate`: names that are made here, from documents in which features fire."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from featurestore.base.json_text import print_json
from featurestore.base.number_words import counted
from featurestore.base.terminal import print_page
from featurestore.names.arguments import VERSION, asked, checked, feature_option

if TYPE_CHECKING:
    from featurestore.evidence.records import DocumentEvidence
    from featurestore.index.firing import Firing
    from featurestore.names.table import FeatureName
    from featurestore.names.which_sae import NamedSae
    from featurestore.reader import FeatureStore


class StageOne(Protocol):
    """What the first stage does for `names`; the front door hands it in."""

    def evidence(
        self, store: FeatureStore, wanted: Mapping[str, Sequence[tuple[str, int]]]
    ) -> Iterable[DocumentEvidence]:
        """The tokens of documents with the activations of the (SAE, feature) pairs asked for, in this order."""

    def neuronpedia_id(self, release: str, id: str) -> str | None:
        """An SAE's id at Neuronpedia; None where sae-lens' registry knows none."""

    def generator(self, model: str) -> tuple[str, Any]:
        """(name, function) of a text generator of this machine; the function gives what follows each prompt."""


@dataclass(frozen=True)
class _Run:
    """Features, and the documents in which they fire, run once more."""

    store: FeatureStore
    sae: NamedSae
    column: str
    features: list[int]
    firing: dict[int, Firing]
    documents: dict[int, DocumentEvidence]  # by row of the store

    @property
    def notes(self) -> list[str]:
        problems = [document.problem for document in self.documents.values() if document.problem is not None]
        return [f"{counted(len(problems), 'document')}: {problems[0]}"] if problems else []


def keywords_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `names keywords`."""
    _store_arguments(parser)


def keywords(args: argparse.Namespace) -> int:
    """Name features by the words that they mark."""
    from featurestore.names.keywords import keyword_name
    from featurestore.names.keywords import keywords as find

    run = _run(args)
    found = find(run.documents.values(), run.column, run.features)
    named = {feature: keyword_name(feature, found[feature]) for feature in run.features}
    more = {feature: {"keywords": [asdict(word) for word in found[feature]]} for feature in run.features}
    return _keep(args, run, named, more, "no word distinguishes")


def generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `names generate`."""
    _store_arguments(parser)
    parser.add_argument(
        "--model", metavar="PATH", required=True, help="directory or GGUF file of a causal language model"
    )


def generate(args: argparse.Namespace) -> int:
    """Name features by a text generator of this machine."""
    from featurestore.names.prompts import name_in, prompt
    from featurestore.names.table import FeatureName

    explainer, answers_to = args.stage_one.generator(args.model)  # refused before anything is run
    run = _run(args)
    prompts = {feature: text for feature in run.features if (text := prompt(_mixed(run, feature), run.column, feature))}
    named: dict[int, FeatureName | None] = dict.fromkeys(run.features)
    for feature, answer in zip(prompts, answers_to(list(prompts.values())), strict=True):
        text = name_in(answer)
        named[feature] = FeatureName(feature, text, "generated", explainer) if text else None
    return _keep(args, run, named, {}, f"{explainer} says nothing of")


def _store_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", help="directory or URL of a complete store")
    parser.add_argument("--sae", metavar="NAME", help="which SAE (needed if the store has several)")
    feature_option(parser, "which feature", required=True)


def _run(args: argparse.Namespace) -> _Run:
    from featurestore.names.documents import name_documents
    from featurestore.names.which_sae import sae_of_store
    from featurestore.reader import FeatureStore

    store = FeatureStore.open(args.store)
    name, numbers = asked(args)
    sae, column = sae_of_store(store, name), store.sae(name).name
    features = checked(numbers, sae)
    firing, told = name_documents(store, column, features)
    ids = store.documents().select("doc_id").collect()["doc_id"].gather(list(told)).to_list()
    about = [[(column, feature) for feature in of] for of in told.values()]
    made = args.stage_one.evidence(store, dict(zip(ids, about, strict=True)))
    return _Run(store, sae, column, features, firing, dict(zip(told, made, strict=True)))


def _mixed(run: _Run, feature: int) -> list[DocumentEvidence]:
    """Documents of a feature: the strongest and those drawn at random in turn."""
    firing = run.firing[feature]
    turns = [row for pair in zip(firing.strongest, firing.random, strict=False) for row in pair]
    rows = dict.fromkeys([*turns, *firing.strongest, *firing.random])
    return [run.documents[int(row)] for row in rows]


def _keep(
    args: argparse.Namespace,
    run: _Run,
    named: dict[int, FeatureName | None],
    more: dict[int, dict[str, Any]],
    without: str,
) -> int:
    """Keep names and print them; `without` begins the sentence for a feature that fires and has none."""
    from featurestore.names.merging import keep_names
    from featurestore.names.table import NameRow
    from featurestore.url_secrets import shown

    origin = f"{shown(run.store.uri)} ({run.store.fingerprint[:12]})"
    rows = [
        NameRow(name.feature, name.text, name.source, name.explainer, origin=origin) for name in named.values() if name
    ]
    if rows:
        keep_names(run.sae.sha256, run.sae.d_sae, rows, args.names)
    if args.json:
        facts = [
            {
                "feature": feature,
                "name": name and name.text,
                "explainer": name and name.explainer,
                "documents": run.firing[feature].n_documents,
                **more.get(feature, {}),
            }
            for feature, name in named.items()
        ]
        which = {"sae": run.column, "sha256": run.sae.sha256}
        print_json({"version": VERSION, **which, "features": facts, "notes": run.notes})
        return 0
    for feature, name in named.items():
        n = run.firing[feature].n_documents
        nothing = f"{without} the {counted(n, 'document')} it fires in" if n else "fires in no document"
        print_page(f"{run.column}:{feature}  {name.shown() if name else nothing}")
    for note in run.notes:
        print_page(f"note: {note}")
    return 0
