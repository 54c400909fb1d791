"""The names of the features that a trained model reads, for the reasons of its predictions."""

from __future__ import annotations

from featurestore.format.provenance import described
from featurestore.models.model import Model
from featurestore.names.table import NameTable


def names_read(model: Model) -> dict[tuple[str, int], dict[str, str | None]]:
    """Names of the features that a model reads, from this machine's tables."""
    trained = model.header["trained_on"]
    found: dict[tuple[str, int], dict[str, str | None]] = {}
    for sae, features in model.used().items():
        sha256 = described(trained["identity"], sae).get("sha256")
        if isinstance(sha256, str):
            table = NameTable.open(sha256, trained["d_sae"][sae])
            for feature, name in table.best(features.tolist()).items():
                found[sae, feature] = {"text": name.text, "source": name.source, "explainer": name.explainer}
    return found
