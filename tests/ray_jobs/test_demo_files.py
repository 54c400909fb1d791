"""The demo lays out its files, and leaves those that a user has written or changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from featurestore.errors import UsageError
from ray_jobs import demo
from ray_jobs.demo import write_demo

pytestmark = pytest.mark.real


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only its path is written; joining 240 MB from its packages is not what is asked here."""
    monkeypatch.setattr(demo, "model_file", lambda: Path("/models/gemma.gguf"))


def test_a_changed_file_is_kept_and_the_demo_says_how_to_insist(tmp_path: Path) -> None:
    files = write_demo(tmp_path / "new" / "demo")
    written = {path: path.stat().st_mtime_ns for path in (files.corpus, files.job, files.study)}
    write_demo(tmp_path / "new" / "demo")
    assert {path: path.stat().st_mtime_ns for path in written} == written
    original = files.study.read_text()
    files.study.write_text(f"{original}bootstrap: 2000\n")
    with pytest.raises(UsageError, match=r"study\.yaml is there already; choose another name, or .* --overwrite"):
        write_demo(tmp_path / "new" / "demo")
    assert files.study.read_text().endswith("bootstrap: 2000\n")
    write_demo(tmp_path / "new" / "demo", overwrite=True)
    assert files.study.read_text() == original


def test_somebody_elses_file_stops_the_demo_before_it_writes_any(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(b"\xff mine")
    with pytest.raises(UsageError, match=r"job\.yaml is there already"):
        write_demo(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["job.yaml"]
