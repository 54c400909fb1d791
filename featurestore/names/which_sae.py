"""Which SAE names are for: its sha256 and width, and what a store says that an export can contradict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from featurestore.errors import NamesError
from featurestore.format.provenance import bundle_sources
from featurestore.reader import FeatureStore
from featurestore.storage.files import shown

RegistryId = Callable[[str, str], str | None]
"""(release, id) of an SAE -> its id at Neuronpedia, `gemma-2-2b/12-gemmascope-res-16k`; None where there is none."""


@dataclass(frozen=True)
class NamedSae:
    """An SAE whose features are named.

    Attributes:
        sha256: Of its encoder.
        d_sae: Its width.
        title: For messages.
        model: Name of the language model that it reads, None where nobody says.
        layer: Which layer it reads, None where nobody says.
        neuronpedia: Its id at Neuronpedia, None where nobody says.
    """

    sha256: str
    d_sae: int
    title: str
    model: str | None = None
    layer: int | None = None
    neuronpedia: str | None = None


def sae_of_store(store: FeatureStore, sae: str | None, registry_id: RegistryId | None = None) -> NamedSae:
    """An SAE of a store.

    Args:
        store: An open store.
        sae: Its name there; may be left out if the store has one.
        registry_id: Looks up its id at Neuronpedia; not asked where None.

    Raises:
        StoreError: The store has no such SAE.
        NamesError: The store does not record which encoder it is.
    """
    columns = store.sae(sae)
    source = bundle_sources(store.plan)
    facts = source["saes"][columns.name]
    if not facts["sha256"]:
        raise NamesError(
            f"{shown(store.uri)} does not record the sha256 of SAE '{columns.name}' (an earlier version wrote it), by "
            "which names are kept; give --sha256, as `sparsemill prepare` prints it, and --width"
        )
    known = registry_id is not None and isinstance(facts["release"], str) and isinstance(facts["id"], str)
    return NamedSae(
        sha256=facts["sha256"],
        d_sae=columns.d_sae,
        title=f"SAE '{columns.name}' of {shown(store.uri)}",
        model=source["model"]["name"],
        layer=facts["hook"] and facts["hook"]["layer"],
        neuronpedia=registry_id(facts["release"], facts["id"]) if known and registry_id is not None else None,
    )
