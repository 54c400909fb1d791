"""Tell where a store's features come from: model, SAEs, hooks, and the sha256 of each encoder.

`store.json` holds it under `identity`, `spec` and `extra`, as the job of stage 1 wrote them. Stores by others, and by
earlier versions, say less, and then a field is None. Whether that fits a trained model is left to stage 2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featurestore.format.store_plan import StorePlan

_HOOK = re.compile(r"(?P<site>\w+) of layer (?P<layer>\d+)")  # as the identity words it


def encoders(plan: StorePlan) -> dict[str, str | None]:
    """Name of each SAE -> sha256 of its encoder's float32 values, by which it is the same under any name."""
    return {sae.name: described(plan.identity, sae.name).get("sha256") for sae in plan.schema.saes}


def described(identity: Mapping[str, Any], sae: str) -> Mapping[str, Any]:
    """What an identity says about an SAE; empty if nothing."""
    saes = identity.get("saes")
    found = saes.get(sae) if isinstance(saes, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def hook(identity: Mapping[str, Any], sae: str) -> dict[str, Any] | None:
    """Where an SAE reads, as {"layer": 12, "site": "resid_post"}."""
    found = _HOOK.fullmatch(str(described(identity, sae).get("hook")))
    return {"layer": int(found["layer"]), "site": found["site"]} if found else None


def bundle_sources(plan: StorePlan) -> dict[str, Any]:
    """What the bundle of a store can be built from again.

    Returns:
        Plain JSON data: `model` with name (as the job has it), revision (the commit, for models of the hub) and dtype;
        `saes`, name -> release, id and revision (or path), sha256 of the encoder, and hook.
    """
    commits = _mapping(plan.extra.get("hub"))
    model, settled = _mapping(plan.spec.get("model")), _mapping(plan.identity.get("model"))
    written = plan.spec.get("saes")
    by_name = {sae.get("name"): sae for sae in written if isinstance(sae, Mapping)} if isinstance(written, list) else {}
    saes = {}
    for name, sha256 in encoders(plan).items():
        sae = _mapping(by_name.get(name))
        commit = _mapping(commits.get("saes")).get(name)
        saes[name] = {
            "release": sae.get("release"),
            "id": sae.get("id"),
            "revision": commit or sae.get("revision"),
            "path": sae.get("path"),
            "sha256": sha256,
            "hook": hook(plan.identity, name),
        }
    return {
        "model": {
            "name": model.get("name") or settled.get("name"),
            "revision": commits.get("model") or model.get("revision"),
            "dtype": settled.get("dtype"),
        },
        "saes": saes,
    }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
