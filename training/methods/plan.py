"""Every method that a study asks for, from its YAML and what its stores hold.

The order is that of the spec, baselines first and each with every probe. An SAE, pooling or dense column that a store
does not have is refused here, before anything is computed, and so is a method that is asked for twice. No two methods
have one name: it tells stores by their last folder and thresholds by six digits, and says more of them where it must.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from featurestore.base.dense_names import PIXELS, parse_dense_name
from featurestore.base.did_you_mean import did_you_mean
from featurestore.base.number_words import told_apart
from featurestore.base.poolings import stored_pool
from featurestore.errors import StudyError
from featurestore.storage.files import shown
from training.methods.method import Method
from training.methods.store_names import store_name, store_names, store_place
from training.spec import FeatureSpec, HiddenBaseline, NumbersBaseline, StudySpec

if TYPE_CHECKING:
    from featurestore.reader import FeatureStore


def plan_methods(
    store: FeatureStore, spec: StudySpec, others: dict[str, FeatureStore] | None = None
) -> tuple[Method, ...]:
    """Every method of a study: baselines, then SAE features in the order of the spec, each with every probe.

    Args:
        store: The study's store.
        spec: The study.
        others: URI -> open store, for features that name one.

    Raises:
        StudyError: The store has no such SAE, pooling or dense column, or two methods are the same.
    """
    found: tuple[Method, ...] = ()
    for spelling in _spellings(spec):
        found = _all_methods(store, spec, others or {}, spelling)
        _refuse_the_same(found, spec.store)
        if len({method.name for method in found}) == len(found):
            return found
    twice = next(method.name for i, method in enumerate(found) if any(method.name == one.name for one in found[:i]))
    raise StudyError(
        f"features and baselines: two methods would be called '{twice}'; give the folder of a store another name"
    )


@dataclass(frozen=True)
class _Spelling:
    """How names of methods write what a study is made of.

    Attributes:
        stores: URI of another store than the study's -> what it is called.
        thresholds: Threshold -> as it is written.
    """

    stores: Mapping[str, str]
    thresholds: Mapping[float, str]


def _spellings(spec: StudySpec) -> list[_Spelling]:
    """From the plainest, which suits nearly every study, to the one that tells all stores and thresholds apart."""
    uris = spec.other_stores
    asked = [one for one in (*spec.baselines, *spec.features) if isinstance(one, FeatureSpec)]
    numbers = [t for one in asked for t in one.binarize if isinstance(t, float)]
    short, told = {uri: store_name(uri) for uri in uris}, store_names(uris)
    return [_Spelling(s, t) for t, s in product(({n: f"{n:g}" for n in numbers}, told_apart(numbers)), (short, told))]


def _refuse_the_same(methods: Sequence[Method], own: str) -> None:
    """Refuse methods that would be the same classifier of the same features, under whatever names.

    Raises:
        StudyError: Naming both.
    """
    seen: dict[Method, Method] = {}
    for method in methods:
        kind = "sae" if method.kind in ("control", "peer") else method.kind
        what = replace(method, name="", kind=kind, store="/".join(store_place(method.store or own)))
        if (first := seen.setdefault(what, method)) is not method:
            mine = ("sae", "control", "beside")
            places = ["features" if one.kind in mine else "baselines" for one in (method, first)]
            raise StudyError(
                f"{places[0]}: method '{method.name}' is the same as '{first.name}' of the {places[1]}; remove one"
            )


def _all_methods(
    store: FeatureStore, spec: StudySpec, others: Mapping[str, FeatureStore], spelling: _Spelling
) -> tuple[Method, ...]:
    """Every method, named in one spelling; what a store does not have is refused."""
    without_probe: list[Method] = []
    for name, kind in (("tfidf", "tfidf"), ("char_ngrams", "char")):
        if name in spec.named_baselines:
            without_probe.append(Method(name, kind))
    for name in ("hidden_mean", "hidden_last"):
        if name in spec.named_baselines:
            without_probe += _dense_methods(store, name)
    if "pixels" in spec.named_baselines:
        if PIXELS not in store.dense_names:
            raise StudyError(
                f"baselines: {shown(store.uri)} has no {PIXELS} column; extract images again with 'pixels: 16' in the "
                "job, or drop the baseline"
            )
        without_probe.append(Method(PIXELS, "dense", column=PIXELS))
    for baseline in spec.baselines:
        if isinstance(baseline, NumbersBaseline):
            without_probe.append(Method(baseline.name, "numbers", column=baseline.name))
        elif isinstance(baseline, HiddenBaseline):
            for kind in baseline.hidden:
                prefix = f"{spelling.stores[baseline.store]}/"
                without_probe += _dense_methods(others[baseline.store], f"hidden_{kind}", baseline.store, prefix)
    peers = [one for one in spec.baselines if isinstance(one, FeatureSpec)]
    for i, feature in enumerate((*peers, *spec.features)):
        at = store if feature.store is None else others[feature.store]
        _check_features(at, feature)
        mine = _sae_methods(feature, spec.screen, spelling)
        without_probe += [replace(method, kind="peer") for method in mine] if i < len(peers) else mine
        without_probe += [
            replace(method, name=f"{method.name}+{name}", kind="beside", column=name)
            for name in feature.beside
            for method in mine
        ]
    methods = [Method("majority", "majority", probe=None)]
    for one in without_probe:
        for probe in spec.probes:
            tail = "" if probe == "logistic_l2" else f" {probe}"
            methods.append(replace(one, name=f"{one.name}{tail}", probe=probe, class_weight=spec.class_weight))
    return tuple(methods)


def _check_features(at: FeatureStore, feature: FeatureSpec) -> None:
    """Refuse an SAE or pooling that a store does not have.

    Raises:
        StudyError: Naming those that there are.
    """
    pools = {sae.name: sae.pools for sae in at.schema.saes}
    for sae in feature.sae:
        if sae not in pools:
            there = ", ".join(pools) or "none"
            hint = did_you_mean(sae, pools)
            raise StudyError(f"features: {shown(at.uri)} has no SAE '{sae}'; it has: {there}{hint}")
        for pool in feature.pool:
            stored = stored_pool(pool)
            if stored not in pools[sae]:
                there = ", ".join(pools[sae])
                raise StudyError(
                    f"features: {shown(at.uri)} has no pooling '{stored}' of SAE '{sae}'; it has: {there}; "
                    "choose one of these or extract again with it"
                )


def _sae_methods(feature: FeatureSpec, screen: int | None, spelling: _Spelling) -> list[Method]:
    """One method for each pooling, threshold, scale and selection; where features are screened, all are selections."""
    sae, methods = "+".join(feature.sae), []
    prefix = "" if feature.store is None else f"{spelling.stores[feature.store]}/"
    for pool in feature.pool:
        for threshold in feature.binarize:
            for scale in feature.scale:
                for select in feature.select:
                    name = f"{prefix}{sae}:{pool}"
                    if threshold is not None:
                        name += f">{spelling.thresholds[threshold] if isinstance(threshold, float) else threshold}"
                    name += "" if scale == "max_abs" else f" {scale}"
                    name += "" if select is None else f" top{select.k}({select.by})"
                    name += "" if feature.min_documents == 1 else f" df{feature.min_documents}"
                    method = Method(
                        name=name,
                        kind="control" if feature.control else "sae",
                        sae=sae,
                        pool=pool,
                        binarize=threshold,
                        scale=scale,
                        select=select.by if select else ("class_means" if screen else None),
                        k=select.k if select else screen,
                        min_documents=feature.min_documents,
                        screen=screen if select else None,
                        store=feature.store,
                    )
                    methods.append(method)
    return methods


def _dense_methods(store: FeatureStore, name: str, other: str | None = None, prefix: str = "") -> list[Method]:
    """The hidden states of a store, of each hook; `other` is its URI where it is not the study's, `prefix` its name."""
    kind = name.removeprefix("hidden_")
    hooks = {d.name: read.hook for d in store.schema.dense if (read := parse_dense_name(d.name)) and read.kind == kind}
    if not hooks:
        there = ", ".join(dense.name for dense in store.schema.dense) or "none"
        raise StudyError(
            f"baselines: {shown(store.uri)} has no {name} column (dense columns: {there}); "
            f"extract again with 'hidden: [{kind}]' or drop the baseline"
        )
    name = f"{prefix}{name}"
    if len(hooks) == 1:
        return [Method(name, "dense", column=column, store=other) for column in hooks]
    return [Method(f"{name}:{hook}", "dense", column=column, store=other) for column, hook in hooks.items()]
