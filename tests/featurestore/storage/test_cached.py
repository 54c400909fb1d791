"""What the cache holds is listed by kind, and cleaned without taking what is being made or what does not come back."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

import pytest

import sparsemill
from featurestore.storage.cached import KINDS, cached, remove

OLD = time.time() - 40 * 86_400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "cache"
    monkeypatch.setenv("SPARSEMILL_CACHE", str(root))
    for path, n_bytes, used in (
        ("bundles/aaaa/model.safetensors", 3000, OLD),
        ("bundles/aaaa/bundle.json", 10, OLD),
        ("bundles/bbbb/bundle.json", 20, time.time()),
        ("index/key-l9-max.parquet", 500, OLD),
        ("names/0123.parquet", 70, OLD),
        ("converted/ab.safetensors", 40, OLD),
        ("converted/ab.lock", 0, OLD),
    ):
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * n_bytes)
        os.utime(file, (used, used))
    (root / "bundles" / "cccc").symlink_to("aaaa")
    (root / "bundles-locks").mkdir()
    (root / "bundles-locks" / "aaaa").touch()
    return root


def test_everything_is_listed_once_with_its_size(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sparsemill.main(["cache", "list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    sizes = {Path(entry["path"]).name: entry["bytes"] for entry in found["entries"]}
    assert sizes == {"aaaa": 3010, "bbbb": 20, "key-l9-max.parquet": 500, "0123.parquet": 70, "ab.safetensors": 40}
    assert found["bytes"] == 3640
    assert sparsemill.main(["cache", "list"]) == 0
    page = capsys.readouterr().out
    assert "aaaa" in page and "`prepare` builds them again" in page


def test_what_was_not_used_goes_and_names_stay(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sparsemill.main(["cache", "clean", "--unused", "30", "--dry-run"]) == 0
    assert "3 things would be removed" in capsys.readouterr().out
    assert (cache / "bundles/aaaa").is_dir()
    assert sparsemill.main(["cache", "clean", "--unused", "30"]) == 0
    assert "3 things removed" in capsys.readouterr().out
    left = sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file() or path.is_symlink())
    assert left == ["bundles-locks/aaaa", "bundles/bbbb/bundle.json", "converted/ab.lock", "names/0123.parquet"]
    assert sparsemill.main(["cache", "clean", "--kind", "names"]) == 0
    assert not list((cache / "names").iterdir())


def test_what_another_process_makes_is_left_to_it(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (cache / "bundles-locks" / "aaaa").open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert sparsemill.main(["cache", "clean", "--kind", "bundles"]) == 0
    said = capsys.readouterr()
    assert "1 thing kept: another process makes it just now" in said.err
    assert (cache / "bundles/aaaa").is_dir() and not (cache / "bundles/bbbb").exists()


def test_what_is_gone_already_is_no_error(cache: Path) -> None:
    (one,) = cached(["converted"])
    one.path.unlink()
    assert remove(one)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["clean", "--kind", "bundle"], "there is no 'bundle' in the cache; did you mean 'bundles'?"),
        (["list", "--dry-run"], "--dry-run is of `cache clean`"),
    ],
)
def test_mistakes_are_one_sentence(
    cache: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: str
) -> None:
    assert sparsemill.main(["cache", *argv]) == 2
    assert words in capsys.readouterr().err


def test_every_folder_of_the_cache_is_a_kind() -> None:
    """A folder that nobody lists would grow unseen."""
    import re

    root = Path(__file__).parents[3]
    named = set()
    for package in ("ray_jobs", "featurestore", "training"):
        for path in (root / package).rglob("*.py"):
            named |= set(re.findall(r'cache_path\("([a-z]+)"\)', path.read_text(encoding="utf-8")))
    assert named and named <= set(KINDS)


def test_what_a_killed_process_has_left_half_made_is_removed(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bundles/.building-dddd-x/model.safetensors", "converted/.converting-x/part"):
        (cache / name).parent.mkdir(parents=True)
        (cache / name).write_bytes(b"x")
        os.utime(cache / name, (OLD, OLD))
    killed, held = cache / "bundles/.building-dddd-x", cache / "bundles/.building-eeee-x"
    held.mkdir()
    (cache / "bundles-locks" / "dddd").touch()
    with (cache / "bundles-locks" / "eeee").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sparsemill.main(["cache", "list", "--json"]) == 0
        listed = {Path(one["path"]).name for one in json.loads(capsys.readouterr().out)["entries"]}
        assert killed.name in listed and ".converting-x" in listed and held.name not in listed
        assert sparsemill.main(["cache", "clean"]) == 0
    assert held.is_dir() and not killed.exists() and not (cache / "converted/.converting-x").exists()
