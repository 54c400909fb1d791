"""Compressed files are decompressed once for a machine, and leave nothing behind."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from featurestore.errors import CorpusError
from featurestore.storage.node_lock import node_lock
from featurestore.tables import record
from ray_jobs.corpus import spill as module
from ray_jobs.corpus.read import DocumentRows, read_rows
from ray_jobs.corpus.scan import scan
from ray_jobs.corpus.scanned import CorpusScan
from ray_jobs.corpus.slices import Slice, slices
from ray_jobs.corpus.spill import Spill, drop, why_not_kept
from ray_jobs.spec import CorpusSpec
from tests.ray_jobs.corpora import jsonl, spec, written, zstd

N = 300
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {"gz": gzip.compress, "zst": zstd}


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where texts are kept, with a mark at each tenth row."""
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ray_jobs.corpus.slices.MARK_ROWS", 10)
    monkeypatch.setattr("ray_jobs.corpus.scan.MARK_ROWS", 10)
    return tmp_path / "cache" / "spilled"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each decompression that is begun."""
    begun: list[str] = []
    decompressed = record.decompressed

    def noted(raw: Any, file: Any, stack: Any) -> Any:
        begun.append(file.name)
        return decompressed(raw, file, stack)

    monkeypatch.setattr(record, "decompressed", noted)
    monkeypatch.setattr(module, "decompressed", noted)
    return begun


def corpus(folder: Path, kind: str = "gz", name: str = "a", n: int = N) -> CorpusSpec:
    data = jsonl(*({"text": f"{name} {i} " + "x" * (i % 50)} for i in range(n))).encode()
    return spec(written(folder / f"{name}.jsonl.{kind}", COMPRESSED[kind](data)))


def units(scanned: CorpusScan, size: int = 10) -> list[tuple[Slice, ...]]:
    return [slices(scanned, a, b) for a, b in pairwise([*range(0, scanned.rows, size), scanned.rows])]


def texts(rows: Iterator[DocumentRows]) -> list[str | None]:
    return [text for part in rows for text in part.text]


@pytest.mark.parametrize("kind", COMPRESSED)
def test_units_of_a_compressed_file_are_read_with_the_work_of_one_pass(
    tmp_path: Path, opened: list[str], kind: str
) -> None:
    job = corpus(tmp_path, kind)
    scanned = scan(job)
    whole = read_rows(slices(scanned, 0, N), job, {})
    opened.clear()
    spill = Spill("run")
    found = texts(read_rows(unit, job, {}, spill) for unit in units(scanned))
    assert found == whole.text
    assert len(opened) == 3  # the first two units, for which nothing or little lies before, and the text that is kept
    assert spill.refused == []


def test_a_remote_file_is_fetched_once(opened: list[str]) -> None:
    import fsspec

    data = jsonl(*({"text": f"remote {i}"} for i in range(N))).encode()
    fsspec.filesystem("memory").pipe("/spill-of-test/a.jsonl.gz", gzip.compress(data))
    job = spec("memory://spill-of-test/*.gz")
    scanned = scan(job)
    opened.clear()
    spill = Spill("run")
    assert texts(read_rows(unit, job, {}, spill) for unit in units(scanned)) == [f"remote {i}" for i in range(N)]
    assert len(opened) == 3


def test_whoever_writes_a_text_out_or_waits_for_it_says_that_it_goes_on(tmp_path: Path) -> None:
    job = corpus(tmp_path)
    scanned = scan(job)
    last = units(scanned)[-1]
    turns: list[int] = []
    read_rows(last, job, {}, Spill("writing", lambda: turns.append(0)))
    assert turns
    turns.clear()
    begun = threading.Event()

    def hold() -> None:
        directory = module._root() / "waiting"
        with node_lock(directory / f"{last[0].sha256}.lock"):
            begun.set()
            while not turns:
                time.sleep(0.01)

    holder = threading.Thread(target=hold)
    holder.start()
    begun.wait()
    assert read_rows(last, job, {}, Spill("waiting", lambda: turns.append(0))).text
    holder.join()


def test_a_file_of_few_units_is_not_written_out(tmp_path: Path, kept: Path) -> None:
    job = corpus(tmp_path)
    scanned = scan(job)
    found = texts(read_rows(unit, job, {}, Spill("run")) for unit in units(scanned, N // 2))
    assert len(found) == N
    assert not kept.exists()


def test_files_that_can_be_sought_are_not_copied(tmp_path: Path, kept: Path) -> None:
    job = spec(written(tmp_path / "a.jsonl", jsonl(*({"text": str(i)} for i in range(N)))))
    assert len(texts(read_rows(unit, job, {}, Spill("run")) for unit in units(scan(job)))) == N
    assert not kept.exists()


def _read_all(job: CorpusSpec, start: Any, results: Any) -> None:
    scanned = scan(job)
    spill = Spill("run")
    start.wait(60)
    begun: list[str] = []
    decompressed = module.decompressed
    module.decompressed = lambda raw, file, stack: begun.append(file.name) or decompressed(raw, file, stack)  # type: ignore
    found = texts(read_rows(unit, job, {}, spill) for unit in reversed(units(scanned)))
    results.put((len(begun), found))
    start.wait(60)  # nobody leaves before all are done


def test_workers_of_a_machine_share_one_text(tmp_path: Path, kept: Path) -> None:
    job = corpus(tmp_path, n=3000)
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(4), context.Queue()
    workers = [context.Process(target=_read_all, args=(job, start, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    start.wait(60)
    got = [results.get(timeout=60) for _ in workers]
    assert len(list(kept.glob("*/run/*.text"))) == 1
    start.wait(60)
    for worker in workers:
        worker.join(60)
    assert sum(begun for begun, _ in got) == 1
    assert got[0][1] == got[1][1] == got[2][1]
    assert len(got[0][1]) == 3000


def test_leaving_removes_the_text_and_reading_goes_on_without_it(tmp_path: Path, kept: Path) -> None:
    job = corpus(tmp_path)
    scanned = scan(job)
    spill = Spill("run")
    *_, last = units(scanned)
    before = read_rows(last, job, {}, spill)
    assert list(kept.glob("*/run/*.text"))
    spill.close()
    assert not list(kept.glob("*/*"))
    assert read_rows(last, job, {}, spill).text == before.text
    assert not list(kept.glob("*/*"))


def _read_and_die(job: CorpusSpec) -> None:
    *_, last = units(scan(job))
    read_rows(last, job, {}, Spill("killed"))
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_run_has_left_goes_when_the_next_begins_and_not_while_it_lives(
    tmp_path: Path, kept: Path
) -> None:
    job = corpus(tmp_path)
    dead = multiprocessing.get_context("fork").Process(target=_read_and_die, args=(job,))
    dead.start()
    dead.join(60)
    assert list(kept.glob("*/killed/*.text"))
    living = Spill("living")
    assert not list(kept.glob("*/killed"))
    *_, last = units(scan(job))
    read_rows(last, job, {}, living)
    Spill("another")
    assert list(kept.glob("*/living/*.text"))
    drop("living")
    assert not list(kept.glob("*/living"))


def test_a_text_that_is_taken_away_is_written_again(tmp_path: Path, kept: Path) -> None:
    job = corpus(tmp_path)
    *_, last = units(scan(job))
    spill = Spill("run")
    before = read_rows(last, job, {}, spill)
    for taken in (lambda text: text.unlink(), lambda text: shutil.rmtree(text.parent)):
        (text,) = kept.glob("*/run/*.text")
        taken(text)
        assert read_rows(last, job, {}, spill).text == before.text
        assert spill.refused == []
    assert list(kept.glob("*/run/*.text"))


def room(monkeypatch: pytest.MonkeyPatch, kept: Path, n_bytes: int) -> None:
    """A disk with so many bytes free but for what is kept."""
    usage = shutil.disk_usage(kept.parent.parent)

    def small(_: Any) -> Any:
        held = sum(path.stat().st_size for path in kept.glob("*/*/*.text"))
        return usage._replace(free=n_bytes - held)

    monkeypatch.setattr(shutil, "disk_usage", small)


def test_the_text_not_read_for_longest_makes_way(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [corpus(tmp_path, name=name) for name in "abc"]
    scans = [scan(job) for job in jobs]
    room(monkeypatch, kept, 5 * scans[0].files[0].text_bytes)  # half of it holds two texts
    spill = Spill("run")
    for i in (0, 1, 0, 2):
        *_, last = units(scans[i])
        assert read_rows(last, jobs[i], {}, spill).text[-1] is not None
    left = {path.stem for path in kept.glob("*/run/*.text")}
    assert left == {scans[0].files[0].sha256, scans[2].files[0].sha256}
    assert spill.refused == []


def test_a_text_that_does_not_fit_is_read_from_the_start_and_that_is_said_once(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = corpus(tmp_path)
    scanned = scan(job)
    room(monkeypatch, kept, scanned.files[0].text_bytes)
    spill = Spill("run")
    assert (
        texts(read_rows(unit, job, {}, spill) for unit in units(scanned))
        == read_rows(slices(scanned, 0, N), job, {}).text
    )
    assert not list(kept.glob("*/*/*.text"))
    (sentence,) = spill.refused
    assert sentence.startswith(f"{tmp_path}/a.jsonl.gz is not kept decompressed on ")
    assert "so each unit decompresses it from its start; set SPARSEMILL_CACHE to a larger disk" in sentence
    assert why_not_kept(scanned.files[0].text_bytes) is not None
    assert why_not_kept(scanned.files[0].text_bytes // 3) is None


def test_a_cache_that_cannot_be_written_is_said_and_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "file"))
    job = corpus(tmp_path)
    scanned = scan(job)
    spill = Spill("run")
    assert len(texts(read_rows(unit, job, {}, spill) for unit in units(scanned))) == N
    assert len(spill.refused) == 1


def test_a_disk_that_fills_up_while_a_text_is_written_is_no_failure(tmp_path: Path, kept: Path) -> None:
    import resource

    job = corpus(tmp_path)
    scanned = scan(job)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        spill = Spill("run")
        *_, last = units(scanned)
        rows = read_rows(last, job, {}, spill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    assert rows.text[-1] is not None
    assert "File too large" in spill.refused[0]
    assert not [path for path in kept.glob("*/run/*") if path.stat().st_size]


@pytest.mark.parametrize("other", ["same length", "longer"])
def test_a_file_that_changed_since_the_scan_is_refused_by_its_bytes(tmp_path: Path, kept: Path, other: str) -> None:
    job = corpus(tmp_path)
    scanned = scan(job)
    data = gzip.decompress(Path(job.path[0]).read_bytes())
    changed = data.replace(b"a 299 ", b"a 399 ") if other == "same length" else data * 2
    sized = gzip.compress(changed)
    *_, (part,) = units(scanned)
    written(Path(job.path[0]), sized)
    part = Slice(**{**vars(part), "file": type(part.file)(**{**vars(part.file), "size": len(sized)})})
    with pytest.raises(CorpusError, match="has changed since the corpus was scanned"):
        read_rows([part], job, {}, Spill("run"))
    assert not list(kept.glob("*/run/*.text"))
