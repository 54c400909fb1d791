"""Read from sae-lens' registry what it says about an SAE beyond where its weights are."""

from __future__ import annotations


def neuronpedia_id(release: str, id: str) -> str | None:
    """An SAE's id at Neuronpedia, as `gemma-2-2b/12-gemmascope-res-16k`; None where the registry knows none."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    known = get_pretrained_saes_directory().get(release)
    return known.neuronpedia_id.get(id) if known is not None else None
