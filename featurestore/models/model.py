"""A trained model as two plain files: numbers in safetensors, everything else in JSON. No pickle, no scikit-learn.

`NAME.json` says what to read from which kind of store, the classes, and how the model came about; `NAME.safetensors`
holds the features' columns, scales and weights (or a tree's nodes), and hashes of the training documents' ids. Nothing
in either is believed before it is checked, and nothing is ever executed. Studies write them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import fs as pafs

from featurestore.base.did_you_mean import did_you_mean_file
from featurestore.errors import StudyError
from featurestore.models.checks import FORMAT as FORMAT
from featurestore.models.checks import VERSION as VERSION
from featurestore.models.checks import model_problem
from featurestore.storage.files import is_local, parse_json, reached, read_bytes, shown

MAX_BYTES = 1 << 32  # of either file: a linear model of a million features and a hundred classes has 0.8 GB


@dataclass(frozen=True)
class Model:
    """A model that can be applied.

    Attributes:
        header: What the JSON file holds.
        tensors: columns int64 [K] (of the features of all SAEs side by side, or of the dense column), scale [K], shift
            [K] or absent, binarize [K] (learnt thresholds) or absent; coef [classes or 1, K] and intercept, or a tree's
            left, right, feature [nodes], threshold [nodes], value [nodes, classes]; trained_ids uint64 [documents] or
            absent (models of earlier versions): sorted, what `id_hashes` gives for the training documents;
            document_frequency [K] or absent: share of the training documents in which a column is not zero; and the
            arrays of a calibration (`featurestore.models.decision_checks.CALIBRATIONS`), where the header names one.
    """

    header: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.header["classes"])

    @property
    def stored_pool(self) -> str | None:
        """The pooling that is read of SAEs: a mean is a sum by the number of tokens. None for a dense column."""
        return "sum" if self.header["pool"] == "mean" else self.header["pool"]

    def places(self) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Which feature each column is.

        Returns:
            Names of the SAEs, and of each of the K columns the place of its SAE among them and its feature, int64 [K].
        """
        names = list(self.header["saes"])
        widths = [int(self.header["trained_on"]["d_sae"][name]) for name in names]
        starts = np.concatenate([[0], np.cumsum(widths)]).astype(np.int64)
        sae = np.searchsorted(starts, self.tensors["columns"], side="right") - 1
        return names, sae, self.tensors["columns"] - starts[sae]

    def used(self) -> dict[str, np.ndarray]:
        """Features that can move a score, by SAE: int64, ascending. Those of weight 0, and of no node, cannot."""
        tensors = self.tensors
        if self.header["link"] == "tree":
            matters = np.isin(np.arange(len(tensors["columns"])), tensors["feature"][tensors["left"] >= 0])
        else:
            matters = (tensors["coef"] != 0).any(axis=0)
        names, sae, feature = self.places()
        found: dict[str, np.ndarray] = {name: np.empty(0, np.int64) for name in names}
        for place, name in enumerate(names):
            found[name] = np.union1d(found[name], feature[matters & (sae == place)])
        return found


def id_hashes(doc_id: Iterable[str]) -> np.ndarray:
    """uint64 of each id: the first eight bytes of the sha256 of its UTF-8, little-endian."""
    digests = (hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8] for name in doc_id)
    return np.frombuffer(b"".join(digests), "<u8").astype(np.uint64)


def _no_model(stem: str, ending: str, fs: pafs.FileSystem, root: str) -> str:
    """The sentence for a model's file that is not there."""
    folder = next((f for f in (f"{root}/models", root) if fs.get_file_info(f).type.name == "Directory"), None)
    if folder is not None:
        there = fs.get_file_info(pafs.FileSelector(folder))
        names = sorted(info.base_name for info in there if info.base_name.endswith(".safetensors"))
        under = stem if folder == root else f"{stem}/models"
        some = ", ".join(f"{under}/{name.removesuffix('.safetensors')}.json" for name in names)
        return f"{stem} is a directory{', of a study' if names else ''}; give a model, {some or 'NAME.json'}"
    if fs.get_file_info(root).type.name == "File":
        return f"{stem} is no model; give NAME.json, which lies beside its NAME.safetensors"
    near = did_you_mean_file(f"{root}.{ending}") if is_local(fs) else ""
    near = near if ".json'" in near else ""
    return f"{stem}.{ending}: there is no such file; a model is NAME.json and NAME.safetensors{near}"


def load_model(path: str | Path) -> Model:
    """Open a model by its JSON file, its safetensors file, or their common name.

    Raises:
        StudyError: There is no such model, or a file does not hold what it should; nothing in it is ever executed.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    stem = str(path).removesuffix(".json").removesuffix(".safetensors")
    fs, root = reached(stem)
    for ending in ("json", "safetensors"):
        info = fs.get_file_info(f"{root}.{ending}")
        if info.type.name != "File":
            raise StudyError(_no_model(shown(stem), ending, fs, root))
        if info.size > MAX_BYTES:
            raise StudyError(f"{shown(stem)}.{ending}: is too large to be a model; check the path")
    try:
        header = parse_json(read_bytes(fs, f"{root}.json"))
        tensors = load(read_bytes(fs, f"{root}.safetensors"))
    except (ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        raise StudyError(f"{shown(stem)}: cannot be read as a model ({reason}); train it again") from None
    problem = model_problem(header, tensors)
    if problem:
        raise StudyError(f"{shown(stem)}: is no model of this program ({problem}); give one that a study wrote")
    return Model(header, tensors)
