"""`saes`, and `plan` and `extract` of presets, as a user calls them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import sparsemill
from ray_jobs.spec import load_job

ROOT = Path(__file__).parents[2]
KEYS = ["release", "id", "model", "site", "layer", "d_sae", "l0", "neuronpedia", "accepted", "needs", "reason"]


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = sparsemill.main(list(argv))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_json_is_a_row_for_each_sae(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--model", "gemma-2-9b-it", "--site", "resid_post", "--layer", "20", "--width", "131k", "--json"]
    code, out, _ = call(capsys, "saes", *options)
    rows = json.loads(out)["saes"]
    assert code == 0
    assert [list(row) for row in rows] == [KEYS] * 6
    assert {row["release"] for row in rows} == {"gemma-scope-9b-it-res", "gemma-scope-9b-it-res-canonical"}
    assert all(row["accepted"] and row["d_sae"] == 131_072 and row["layer"] == 20 for row in rows)


def test_a_few_are_listed_under_the_release_and_model_that_a_job_names(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "saes", "--release", "gpt2-small-hook-z-kk", "--layer", "5")
    lines = out.splitlines()
    assert code == 0
    assert lines[0] == "release gpt2-small-hook-z-kk, model openai-community/gpt2: hook_z, with allow_pickle: true"
    assert lines[1].split(maxsplit=4) == ["id", "layer", "width", "L0", "Neuronpedia gpt2-small/"]
    assert lines[3].split() == ["blocks.5.hook_z", "5", "49,152", "17", "5-att-kk"]
    assert lines[-1].endswith("1 SAE, of which 1 can be run (1 with allow_pickle: true)")


def test_many_are_counted_by_release_and_more_by_model(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "saes", "--model", "google/gemma-2-2b")
    assert out.splitlines()[0].split() == ["release", "SAEs", "run", "layers", "widths", "sites"]
    assert "gemma-scope-2b-pt-res-canonical" in out
    assert "narrow by  --model, --site, --layer, --width, --release" in out
    _, out, _ = call(capsys, "saes")
    assert out.splitlines()[0].split() == ["model", "SAEs", "run", "layers", "widths", "releases"]
    assert len(out.splitlines()) < 60


@pytest.mark.parametrize("columns", [60, 80])
def test_a_table_fits_its_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    _, out, _ = call(capsys, "saes", "--release", "gemma-scope-9b-it-res-canonical")
    heading, *lines = out.splitlines()
    assert heading.endswith("model google/gemma-2-9b-it: resid_post, runs")
    assert max(map(len, lines)) <= columns
    assert lines[2 if columns == 80 else 0].startswith("layer_9/width_16k/canonical")


def test_what_differs_within_a_release_has_a_column(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "saes", "--release", "pythia-70m-deduped-res-sm")
    assert out.splitlines()[0] == "release pythia-70m-deduped-res-sm, model EleutherAI/pythia-70m-deduped: runs"
    assert out.splitlines()[1].split()[:3] == ["id", "site", "layer"]
    assert {line.split()[1] for line in out.splitlines()[3:10]} == {"resid_pre", "resid_post"}


def test_the_refused_ones_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "saes", "--refused")
    assert code == 0
    assert "refused    3: architecture 'temporal' is not supported: its features depend on the tokens before" in out
    _, out, _ = call(capsys, "saes", "--model", "gpt2", "--refused")
    assert out == "none is refused\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "gemma-2-9b-ti"], "no SAE is of a model 'gemma-2-9b-ti'; did you mean 'gemma-2-9b-it'?"),
        (["--site", "resid_pst"], "there is no site 'resid_pst'; did you mean 'resid_post'?"),
        (["--release", "gpt2-small-res-jp"], "registry; did you mean 'gpt2-small-res-jb'?"),
        (
            ["--release", "gpt2-small-res-jb", "--layer", "99"],
            "none of these SAEs reads layer 99; they read layers 0..11",
        ),
        (["--release", "gpt2-small-res-jb", "--site", "mlp_in"], "reads mlp_in; they read resid_pre, resid_post"),
        (["--model", "gemma-2-9b-it", "--width", "17k"], "none of these SAEs has 17,408 features; they have 16k, 131k"),
        (["--width", "wide"], "--width is a number of features, as 16k, 131k, 1m or 24576, not 'wide'"),
    ],
)
def test_what_leaves_none_is_one_sentence(capsys: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    code, out, err = call(capsys, "saes", *options)
    assert (code, out) == (2, "")
    assert said in err and err.count("\n") == 1


def test_it_answers_without_torch_sae_lens_or_arrow() -> None:
    code = (
        "import sys, sparsemill; sparsemill.main(['saes', '--model', 'gpt2']); "
        "print(sorted({'torch', 'sae_lens', 'pyarrow', 'polars', 'pydantic', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


PRESET = ["--preset", "gemma-2-9b-it/l20_16k"]


@pytest.mark.parametrize("command", ["plan", "extract"])
def test_a_preset_is_printed_as_a_job_that_loads_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    options = [*PRESET, "--corpus", "r.csv", "--text", "body", "--id", "key", "--store", "s", "--print"]
    code, out, err = call(capsys, command, *options)
    assert (code, err) == (0, "")
    (tmp_path / "job.yaml").write_text(out, encoding="utf-8")
    job = load_job(tmp_path / "job.yaml")
    assert (job.corpus.path, job.corpus.text, job.corpus.id) == ((str(tmp_path / "r.csv"),), "body", "key")
    assert (job.model.name, job.saes[0].name, job.store) == ("google/gemma-2-9b-it", "l20_16k", str(tmp_path / "s"))
    assert not (tmp_path / "s").exists()
    _, out, _ = call(capsys, command, *options, "--json")
    assert json.loads(out) == yaml.safe_load((tmp_path / "job.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "there is no job; give JOB.yaml, or --preset NAME --corpus FILE --store STORE"),
        (["--corpus", "c"], "--corpus needs a preset; give JOB.yaml, or --preset"),
        (["--print"], "--print needs a preset"),
        ([*PRESET, "--store", "s"], "--preset needs --corpus too"),
        ([*PRESET, "--corpus", "c"], "--preset needs --store too"),
        (["job.yaml", *PRESET], "job.yaml is a whole job; leave out --preset"),
        (["job.yaml", "--text", "body"], "job.yaml is a whole job; leave out --text"),
        (
            ["--preset", "gemma-2-9b-it/l21_16k", "--corpus", "c", "--store", "s"],
            "there is no preset 'gemma-2-9b-it/l21",
        ),
        (
            [*PRESET, *PRESET, "--corpus", "c", "--store", "s", "--print"],
            "the preset gemma-2-9b-it/l20_16k is given twice; remove one",
        ),
    ],
)
def test_a_job_that_is_given_in_part_or_twice_is_one_sentence(
    capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    code, out, err = call(capsys, "plan", *options)
    assert (code, out) == (2, "")
    assert said in err and err.count("\n") == 1


def test_a_plan_of_a_preset_says_what_it_needs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the hub is out of reach no bundle can be made, and nothing is priced."""
    import logging

    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "c.csv").write_text("text\na b\n", encoding="utf-8")
    options = [*PRESET, "--corpus", str(tmp_path / "c.csv"), "--store", str(tmp_path / "s")]
    code, out, err = call(capsys, "plan", *options)
    logging.disable(logging.NOTSET)
    assert (code, out) == (2, "")
    first, *_, last = err.splitlines()
    assert first.startswith("google/gemma-2-9b-it and gemma-scope-9b-it-res-canonical come from the Hugging Face hub")
    assert "model google/gemma-2-9b-it (revision main) could not be fetched: the Hugging Face hub could not be" in last
