"""A label job whose workers and driver die: the same command finishes it, with the same bytes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import yaml

from tests.crash.ground import PATIENCE, computing, descendants, eventually, start_command, working
from tests.ray_jobs.jobs import parts_of
from tests.ray_jobs.labels.label_jobs import answering_model, label_mapping, questions, write_rows


@pytest.mark.slow
def test_kills_leave_whole_parts_and_the_table_has_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    model = answering_model(tmp_path)
    rows = questions(2_400, max_words=60)
    rows[7]["question"] = None
    corpus = write_rows(tmp_path / "rows.jsonl", rows)

    def write_job(name: str) -> Path:
        out = tmp_path / f"{name}.parquet"
        mapping = label_mapping(model, corpus, out, workers={"max": 2, "gpus": 0}, units={"documents": 100})
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(mapping), encoding="utf-8")
        return out

    undisturbed, out = write_job("undisturbed"), write_job("killed")
    driver = start_command("label", "undisturbed.yaml", cwd=tmp_path)
    _, err = driver.communicate(timeout=PATIENCE)
    assert driver.returncode == 0, err
    expected = parts_of(Path(f"{undisturbed}.parts"))
    assert len(expected) == 24

    parts = Path(f"{out}.parts")
    driver = start_command("label", "killed.yaml", cwd=tmp_path)
    victims = eventually(lambda: parts_of(parts) and computing(driver), driver)
    os.kill(victims[0], signal.SIGKILL)  # a worker
    eventually(lambda: len(parts_of(parts)) > 4, driver)
    family = set(descendants(driver.pid))
    os.kill(driver.pid, signal.SIGKILL)  # and then the driver
    driver.communicate()
    eventually(lambda: not working(family))
    survived = parts_of(parts)
    assert 0 < len(survived) < len(expected) and not out.exists(), "the driver was killed too late to prove anything"
    assert all(expected[name] == data for name, data in survived.items())

    again = start_command("label", "killed.yaml", cwd=tmp_path)
    _, err = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, err
    assert parts_of(parts) == expected and out.read_bytes() == undisturbed.read_bytes()
