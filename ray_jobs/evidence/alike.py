"""Find features that read nearly the same direction of the stream: near-copies whose encoder rows agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from featurestore.evidence.alike_file import Alike, read_alike, write_alike
from featurestore.evidence.cache import source
from featurestore.reader import FeatureStore

if TYPE_CHECKING:
    from ray_jobs.backbone.bundle import Bundle

NEARLY = 0.9  # cosine: of two random directions of 640 dimensions it is 0.04 on average
MOST = 5  # that are named of one feature
BLOCK_ROWS = 8_192  # encoder rows in memory at a time: 75 MB of a 2,304-dimensional model in float32


def alike_features(
    bundle: Bundle, wanted: Mapping[str, Sequence[int]]
) -> dict[str, dict[int, list[tuple[int, float]]]]:
    """For some features, the others of their SAE whose encoder rows have a cosine of at least NEARLY with theirs.

    Args:
        bundle: With the SAEs.
        wanted: Name of an SAE -> features.

    Returns:
        SAE -> feature -> (other, cosine), most alike first; an empty list where there is none.
    """
    import torch
    from safetensors import safe_open

    found: dict[str, dict[int, list[tuple[int, float]]]] = {}
    for sae, features in wanted.items():
        info = next(info for info in bundle.saes if info.name == sae)
        with safe_open(bundle.path / info.file_name, framework="pt") as file:
            W_FD = file.get_slice("W_enc")
            own_ND = torch.cat([W_FD[f : f + 1].float() for f in features])
            own_ND /= own_ND.norm(dim=1, keepdim=True).clamp_min(1e-30)
            near: list[list[tuple[float, int]]] = [[] for _ in features]
            for start in range(0, info.d_sae, BLOCK_ROWS):
                block_BD = W_FD[start : start + BLOCK_ROWS].float()
                cosine_NB = own_ND @ (block_BD / block_BD.norm(dim=1, keepdim=True).clamp_min(1e-30)).T
                for n, b in (cosine_NB >= NEARLY).nonzero().tolist():
                    if start + b != features[n]:
                        near[n].append((-float(cosine_NB[n, b]), start + b))
        found[sae] = {
            f: [(other, round(min(-c, 1.0), 3)) for c, other in sorted(near[n])[:MOST]] for n, f in enumerate(features)
        }
    return found


def gather_alike(
    store_uri: str, wanted: Mapping[str, Sequence[int]], directory: str, say: Callable[[str], None] | None = None
) -> Alike:
    """`alike_features` of a store's bundle, from beside a study where it is there, else computed and kept.

    Args:
        store_uri: Directory or URL of the store.
        wanted: Name of an SAE -> features.
        directory: Of the study's evidence.
        say: Called with a line of text before every slow step.

    Raises:
        StoreError: The store cannot be read.
        BundleError: Its bundle is gone and cannot be built again.
        OSError: Storage refused.
    """
    from ray_jobs.evidence.store_bundle import store_bundle

    store = FeatureStore.open(store_uri, partial=True)
    origin = source(store.plan.identity)
    known = read_alike(directory, origin)
    missing = {
        sae: left for sae, features in wanted.items() if (left := [f for f in features if f not in known.get(sae, {})])
    }
    if not missing:
        return known
    found = alike_features(store_bundle(store.plan, store_uri, say), missing)
    alike = {sae: {**known.get(sae, {}), **found.get(sae, {})} for sae in {**known, **found}}
    write_alike(directory, origin, alike)
    return alike
