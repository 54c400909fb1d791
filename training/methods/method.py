"""A method of a study: what a classifier sees, and which classifier it is.

A method is plain data; its matrix is made by `training.methods.matrices`, what is learnt before the classifier by
`training.methods.preparation`, the classifier by `training.probes`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SPARSE = ("sae", "control", "peer", "beside")  # kinds whose matrix is made of SAE features
DENSE = ("dense", "numbers")  # kinds whose matrix is a few dense columns
TEXTUAL = ("tfidf", "char")  # kinds whose matrix is made of the texts


@dataclass(frozen=True)
class Method:
    """What one classifier of the study sees, and which classifier it is.

    Attributes:
        name: Unique in a study, e.g. "l12_16k:max>1", "l12_16k:sum tree", "hidden_mean", "tfidf", "majority".
        kind: "sae", "control" (an SAE with random weights), "peer" (features of the store of a model that is itself
            predicted), "dense", "numbers", "beside" (SAE features and numbers), "tfidf", "char" or "majority".
        sae, pool, binarize: The SAE features; names of SAEs side by side are joined by "+".
        column: The dense column, for kind "dense"; the name of numbers, for kinds "numbers" and "beside".
        scale, select, k, min_documents: What is learnt before the probe, see `training.spec.FeatureSpec`.
        screen: Features that pass by class means while they stream by, before `select` chooses among them; None lets
            all pass.
        store: URI of another store than the study's.
        probe: One of `training.spec.PROBES`; None for majority.
        class_weight: "balanced" lets every class count alike in fits; None counts documents.
    """

    name: str
    kind: str
    sae: str | None = None
    pool: str | None = None
    binarize: float | str | None = None
    column: str | None = None
    scale: str = "max_abs"
    select: str | None = None
    k: int | None = None
    min_documents: int = 1
    screen: int | None = None
    store: str | None = None
    probe: str | None = "logistic_l2"
    class_weight: str | None = None

    @property
    def saes(self) -> tuple[str, ...]:
        """The SAEs whose features it sees, side by side."""
        return () if self.sae is None else tuple(self.sae.split("+"))

    @property
    def source(self) -> tuple[str | None, ...]:
        """Methods with the same source are made of one reading."""
        kind = "sae" if self.kind in SPARSE else self.kind
        return (kind, self.store, self.sae, self.pool, self.column)

    @property
    def scales_only(self) -> bool:
        """Whether all that is learnt before the probe is what each column is divided by."""
        return self.binarize != "learnt" and self.select is None and self.min_documents == 1

    @property
    def without_probe(self) -> Method:
        """The method without its name and probe: methods that are then the same share a matrix."""
        return replace(self, name="", probe=None, class_weight=None)
