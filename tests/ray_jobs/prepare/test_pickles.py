"""Pickles of weights: their tensors are read in another process, and whatever else is in them is not run."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from featurestore.errors import BundleError
from ray_jobs.prepare import pickles
from ray_jobs.prepare.pickles import without_code


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Touch:
    """A pickle of it makes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._path),)


def test_tensors_and_plain_values_come_through_unchanged(tmp_path: Path) -> None:
    tensors = {
        "encoder.weight": torch.randn(7, 5, dtype=torch.bfloat16),
        "bias": torch.randn(7)[::2],
        "threshold": torch.tensor(0.25),
        "k": 50,
        "kind": "topk",
    }
    torch.save(tensors, tmp_path / "ae.pt")
    found = without_code(tmp_path / "ae.pt")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value


@pytest.mark.slow
def test_a_file_is_converted_once_and_known_by_its_content(tmp_path: Path, cache: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "ae.pt")
    without_code(tmp_path / "ae.pt")
    (kept,) = (cache / "converted").glob("*.safetensors")
    before = kept.stat().st_mtime_ns
    (tmp_path / "ae.pt").rename(tmp_path / "other.pt")
    assert torch.equal(without_code(tmp_path / "other.pt")["a"], torch.ones(3))
    assert kept.stat().st_mtime_ns == before
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pt")
    assert torch.equal(without_code(tmp_path / "other.pt")["a"], torch.zeros(3))


def hostile(tmp_path: Path, kind: str) -> Path:
    path, mark = tmp_path / "evil.pt", tmp_path / "touched"
    if kind == "code in a zip":
        torch.save({"W_enc": torch.ones(2), "evil": Touch(mark)}, path)
    elif kind == "a plain pickle":
        path.write_bytes(pickle.dumps(Touch(mark)))
    elif kind == "os.system":
        path.write_bytes(b"cos\nsystem\n(S'touch " + str(mark).encode() + b"'\ntR.")
    elif kind == "a module":
        torch.save(torch.nn.Linear(2, 2), path)
    elif kind == "cut off":
        torch.save({"W_enc": torch.ones(2000)}, path)
        path.write_bytes(path.read_bytes()[:-300])
    elif kind == "a storage that is not there":
        torch.save({"W_enc": torch.ones(2000)}, tmp_path / "whole.pt")
        with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(path, "w") as cut:
            for name in whole.namelist():
                if not name.endswith("data/0"):
                    cut.writestr(name, whole.read(name))
    elif kind == "a list":
        torch.save([torch.ones(2)], path)
    elif kind == "no tensor":
        torch.save({"k": 3}, path)
    elif kind == "nested":
        torch.save({"state": {"W_enc": torch.ones(2)}}, path)
    elif kind == "empty":
        path.write_bytes(b"")
    return path


OTHERS = ("os.system", "a module", "a storage that is not there", "a list", "no tensor", "nested", "empty")


@pytest.mark.parametrize(
    "kind",
    [
        *("code in a zip", "a plain pickle", "cut off"),
        *(pytest.param(kind, marks=pytest.mark.slow) for kind in OTHERS),
    ],
)
def test_whatever_else_a_pickle_holds_is_refused_and_not_run(tmp_path: Path, cache: Path, kind: str) -> None:
    with pytest.raises(BundleError, match=r"^evil\.pt is not a pickle of tensors alone \(.*\); convert it") as caught:
        without_code(hostile(tmp_path, kind))
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
    assert not (tmp_path / "touched").exists()
    assert not list((cache / "converted").glob("*.safetensors"))


def test_a_pickle_that_asks_for_more_memory_than_it_has_is_refused(tmp_path: Path) -> None:
    """A tensor that is expanded from one number: a few hundred bytes on disk, 64 GB when it is made contiguous."""
    torch.save({"W_enc": torch.ones(1).expand(1 << 34)}, tmp_path / "evil.pt")
    assert (tmp_path / "evil.pt").stat().st_size < 10_000
    with pytest.raises(BundleError, match="is not a pickle of tensors alone"):
        without_code(tmp_path / "evil.pt")


def test_a_kind_that_torch_does_not_write_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "ae.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(BundleError, match="a pickle of a kind that is not opened"):
        without_code(tmp_path / "ae.pkl")


def test_one_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "ae.pt")
    monkeypatch.setattr(pickles, "SECONDS", 0.01)
    with pytest.raises(BundleError, match="was not read within"):
        without_code(tmp_path / "ae.pt")
