"""Whether a store holds what a model was trained on, by what both say of their making; no row is read for it.

Refused is what gives every document other features: another language model, SAE or hook, other tokens that count, a
chat template. Warned of is what only some documents feel (those that one of two settings cuts or divides, which the
store can count) or what moves all of them within rounding. Where both sides record the sha256 of an encoder it
decides; stores and models of earlier versions do not, and then the rest is compared and a warning given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from featurestore.base.poolings import stored_pool
from featurestore.errors import StudyError
from featurestore.format.provenance import described, encoders, hook

if TYPE_CHECKING:
    from featurestore.format.store_plan import StorePlan
    from featurestore.reader import FeatureStore

EVERY_DOCUMENT = ("name", "tokens", "chat", "turns", "system_prompt", "generation_prompt", "date")
LONG_DOCUMENTS = ("max_tokens", "long_documents", "stride")
HASHED = ("sha256", "hook", "d_sae", "architecture", "k", "normalize_activations")
UNHASHED = ("hook", "d_sae", "architecture", "mismatch")  # all that earlier versions recorded


@dataclass(frozen=True)
class Caution:
    """What to know about a model's predictions for a store.

    Attributes:
        sentence: In words.
        longer_than: Only documents of more pooled tokens than this are concerned; None where it is not about length.
    """

    sentence: str
    longer_than: int | None = None

    def counted(self, store: FeatureStore) -> str:
        """The sentence, with the number of documents that can be concerned."""
        import polars as pl

        if self.longer_than is None:
            return self.sentence
        long = (pl.col("n_tokens") > self.longer_than) | pl.col("truncated")
        n = int(store.documents().select(long.sum()).collect().item() or 0)
        return f"{self.sentence}: {n:,} of {len(store):,}"


def check_store(header: Mapping[str, Any], plan: StorePlan, where: str) -> tuple[Caution, ...]:
    """Compare a model with a store, or with the plan of one that is not there yet.

    Args:
        header: Of the model.
        plan: Of the store.
        where: The store, for messages.

    Returns:
        What does not forbid predictions and has to be said.

    Raises:
        StudyError: The store's features are others, or lack what the model reads.
    """
    trained = header["trained_on"]["identity"]
    _refuse_other_model(trained, plan.identity, where)
    _refuse_missing_columns(header, plan, where)
    same = header["trained_on"].get("fingerprint") == plan.fingerprint
    return (
        *(() if same else _encoders(header, plan, where)),
        *_commits(header, plan, where),
        *_long_documents(trained, plan.identity, where),
        *_rounding(trained, plan.identity, where),
    )


def _refuse_other_model(trained: Mapping[str, Any], there: Mapping[str, Any], where: str) -> None:
    for key in EVERY_DOCUMENT:
        ours, theirs = (_model(side).get(key) for side in (trained, there))
        if ours != theirs:
            raise StudyError(
                f"{where}: was made with model.{key} {theirs}, but this model was trained on {ours}, and every "
                "document's features depend on it; give a store made like the one it was trained on"
            )
    if (
        _weights(trained)
        and _weights(there)
        and _written_alike(trained, there)
        and _weights(trained) != _weights(there)
    ):
        raise StudyError(
            f"{where}: was made with other weights of {_model(there).get('name')} than this model was trained on "
            f"(sha256 {_short(_weights(there))} instead of {_short(_weights(trained))}); give a store of the same ones"
        )


def _refuse_missing_columns(header: Mapping[str, Any], plan: StorePlan, where: str) -> None:
    if header["dense"] is not None:
        dense = {column.name: column.dim for column in plan.schema.dense}
        if header["dense"] not in dense:
            there = ", ".join(dense) or "none"
            raise StudyError(
                f"{where}: has no column '{header['dense']}', which the model reads; its dense columns: {there}; "
                "its job needs it under 'hidden'"
            )
        return
    known = {sae.name: sae for sae in plan.schema.saes}
    for name in header["saes"]:
        trained = described(header["trained_on"]["identity"], name)
        if name not in known:
            same = [other for other, sha256 in encoders(plan).items() if sha256 and sha256 == trained.get("sha256")]
            hint = f"; '{same[0]}' is the same encoder: call it '{name}' in the job" if same else ""
            raise StudyError(f"{where}: has no SAE '{name}', which the model reads; it has: {', '.join(known)}{hint}")
        stored = stored_pool(header["pool"])
        if stored not in known[name].pools:
            there = ", ".join(known[name].pools)
            raise StudyError(
                f"{where}: has no pooling '{stored}' of SAE '{name}', which the model reads; it has: {there}; "
                f"its job needs '{stored}' under 'pool'"
            )
        if known[name].d_sae != header["trained_on"]["d_sae"].get(name):
            raise _other_encoder(where, name, "d_sae", header["trained_on"]["d_sae"].get(name), known[name].d_sae)
        _refuse_other_encoder(trained, described(plan.identity, name), where, name)


def _refuse_other_encoder(trained: Mapping[str, Any], there: Mapping[str, Any], where: str, sae: str) -> None:
    for key in HASHED if trained.get("sha256") and there.get("sha256") else UNHASHED:
        if trained.get(key) != there.get(key):
            raise _other_encoder(where, sae, key, trained.get(key), there.get(key))


def _other_encoder(where: str, sae: str, key: str, ours: Any, theirs: Any) -> StudyError:
    ours, theirs = ((_short(value) if key == "sha256" else value) for value in (ours, theirs))
    return StudyError(
        f"{where}: its SAE '{sae}' is not the one that this model was trained on ({key} {theirs} instead of {ours}); "
        "give a store made with the same SAE"
    )


def _encoders(header: Mapping[str, Any], plan: StorePlan, where: str) -> Iterator[Caution]:
    """Encoders of which one side does not say the sha256, and no common bundle tells that they are the same."""
    trained = header["trained_on"]["identity"]
    if trained.get("bundle") and trained.get("bundle") == plan.identity.get("bundle"):
        return
    for name in header["saes"]:
        sides = {"the model": described(trained, name), where: described(plan.identity, name)}
        silent = [side for side, sae in sides.items() if not sae.get("sha256")]
        if silent:
            yield Caution(
                f"{' and '.join(silent)} {'do' if len(silent) > 1 else 'does'} not record the sha256 of SAE '{name}' "
                "(written by an earlier version); that it is the same one rests on name, hook, width and architecture"
            )


def _commits(header: Mapping[str, Any], plan: StorePlan, where: str) -> Iterator[Caution]:
    """Other commits of the language model, where its weights cannot be compared."""
    from featurestore.format.provenance import bundle_sources

    ours = ((header.get("bundle") or {}).get("model") or {}).get("revision")
    theirs = bundle_sources(plan)["model"]["revision"]
    if ours and theirs and ours != theirs and not _written_alike(header["trained_on"]["identity"], plan.identity):
        yield Caution(f"{where} was made with commit {theirs} of the language model, this model was trained on {ours}")


def _long_documents(trained: Mapping[str, Any], there: Mapping[str, Any], where: str) -> Iterator[Caution]:
    ours, theirs = _model(trained), _model(there)
    changed = [key for key in LONG_DOCUMENTS if ours.get(key) != theirs.get(key)]
    limits = [side["max_tokens"] for side in (ours, theirs) if isinstance(side.get("max_tokens"), int)]
    if changed and limits:
        longest = min(limits)
        if theirs.get("tokens") != "all":  # then what is fed before the text is not pooled; at the least, it is BOS
            longest -= theirs.get("context_tokens", ours.get("context_tokens", 1))
        made, learnt = (", ".join(f"model.{key} {side.get(key)}" for key in changed) for side in (theirs, ours))
        yield Caution(
            f"{where} was made with {made}, this model was trained with {learnt}; documents of more than {longest:,} "
            "tokens can have other features",
            longest,
        )


def _rounding(trained: Mapping[str, Any], there: Mapping[str, Any], where: str) -> Iterator[Caution]:
    sides = [
        {"model.dtype": _model(side).get("dtype"), "value_bits": side.get("value_bits")} for side in (there, trained)
    ]
    changed = [key for key in sides[0] if sides[0][key] != sides[1][key]]
    if changed:
        theirs, ours = (" and ".join(f"{key} {side[key]}" for key in changed) for side in sides)
        yield Caution(
            f"{where} was made with {theirs}, this model was trained with {ours}; "
            "the features of every document can differ by rounding"
        )


def _model(identity: Mapping[str, Any]) -> Mapping[str, Any]:
    model = identity.get("model")
    return model if isinstance(model, Mapping) else {}


def _weights(identity: Mapping[str, Any]) -> str | None:
    return _model(identity).get("weights_sha256")


def _written_alike(*identities: Mapping[str, Any]) -> bool:
    """Whether the same weights give the same file: as many layers in one precision, named by one version."""
    layers = [max((at["layer"] for sae in i.get("saes", ()) if (at := hook(i, sae))), default=None) for i in identities]
    dtypes = [_model(i).get("dtype") for i in identities]
    named_by = [(i.get("software") or {}).get("transformers") for i in identities]
    return all(len(set(values)) == 1 for values in (layers, dtypes, named_by))


def _short(sha256: Any) -> str:
    return str(sha256)[:12]
