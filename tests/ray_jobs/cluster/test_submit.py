"""`submit` against a real `ray start --head`: the log, the exit codes, Ctrl-C, following resuming; what is sent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from featurestore import FeatureStore
from featurestore.checks.run_files import read_runs
from featurestore.errors import JobSpecError, UsageError
from ray_jobs.cluster import submit as submitting
from ray_jobs.cluster.package import JOB_NAME, as_json, load_runtime_env, working_directory
from ray_jobs.cluster.submit import stop_submitted, submit
from ray_jobs.spec import job_from_mapping, load_job
from sparsemill.commands import main
from tests.clusters import Cluster, head_node
from tests.ray_jobs.jobs import job_mapping, write_corpus, write_job, write_models
from tests.ray_jobs.labels.label_jobs import answering_model, label_mapping, questions, write_rows

ROOT = Path(__file__).parents[3]
PATIENCE = 240.0
RAY_TOKEN = "ab" * 32  # the cluster asks for it because it was started with one in reach


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = write_models(tmp_path_factory.mktemp("models"))
    write_corpus(directory / "c.jsonl", 60)
    return directory


@pytest.fixture(scope="module")
def cluster(models: Path) -> Iterator[Cluster]:
    secrets = {"HF_TOKEN": "hf_onthenodesonlyonthenodesonlyonth", "RAY_AUTH_TOKEN": RAY_TOKEN}
    with head_node({"SPARSEMILL_CACHE": str(models / "cache"), **secrets}) as node:
        yield node


class _Cut:
    """A dashboard that answers, but for the log's connection, which breaks just before the job ends."""

    def __init__(self, log: str) -> None:
        self.log = log

    async def tail_job_logs(self, _: str) -> AsyncIterator[str]:
        yield self.log[:5]
        raise ConnectionResetError

    def get_job_info(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(status=SimpleNamespace(is_terminal=lambda: True))

    def get_job_logs(self, _: str) -> str:
        return self.log


def test_the_last_lines_are_shown_though_the_connection_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "RECONNECT_SECONDS", 0.0)
    said: list[str] = []
    submitting._follow(_Cut("line\nwhy it ended\n"), "id", said.append)
    assert "".join(said) == "line\nwhy it ended\n"


def start(job: Path, cluster: Cluster, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "sparsemill", "submit", str(job), "--address", cluster.dashboard]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=job.parent,
        env=with_token(),
    )


def with_token(token: str = RAY_TOKEN) -> dict[str, str]:
    """This environment with the cluster's token, and nothing said about whether to use it."""
    return {**{k: v for k, v in os.environ.items() if k != "RAY_AUTH_MODE"}, "RAY_AUTH_TOKEN": token}


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    assert "Traceback" not in out + err
    return process.returncode, out, err


def eventually(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
    return found


def jobs(cluster: Cluster) -> dict[str, str]:
    from ray.job_submission import JobSubmissionClient

    client = JobSubmissionClient(cluster.dashboard, headers={"Authorization": f"Bearer {RAY_TOKEN}"})
    return {str(job.submission_id): job.status.value for job in client.list_jobs()}


@pytest.mark.slow
def test_a_cluster_that_asks_for_its_token_is_closed_to_others(cluster: Cluster, models: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job.yaml", job_mapping(models, models / "c.jsonl", tmp_path / "store"))
    command = [sys.executable, "-m", "sparsemill", "submit", str(job), "--address", cluster.dashboard]
    done = subprocess.run(command, env=with_token("cd" * 32), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert "asks for its token" in done.stderr.splitlines()[-1]
    assert "RAY_AUTH_TOKEN" in done.stderr
    assert "cdcd" not in done.stderr


@pytest.mark.slow
def test_doctor_asks_the_dashboard_what_the_cluster_has(cluster: Cluster, models: Path, tmp_path: Path) -> None:
    def ray_of(token: str, **changes: Any) -> dict[str, str]:
        mapping = {**job_mapping(models, models / "c.jsonl", tmp_path / "store"), **changes}
        job = write_job(tmp_path / "job.yaml", mapping)
        command = [sys.executable, "-m", "sparsemill", "doctor", str(job), "--address", cluster.dashboard, "--json"]
        done = subprocess.run(command, env=with_token(token), capture_output=True, text=True, timeout=PATIENCE)
        assert done.stderr == ""
        found: dict[str, dict[str, str]] = {one["what"]: one for one in json.loads(done.stdout)["findings"]}
        assert done.returncode == any(one["verdict"] == "wrong" for one in found.values())
        return found["ray"]

    assert ray_of(RAY_TOKEN) == {"what": "ray", "verdict": "right", "said": "answers: 1 node, 2 CPUs", "do": ""}
    closed = ray_of("cd" * 32)
    assert closed["verdict"] == "wrong" and "asks for its token" in closed["said"] and "RAY_AUTH_TOKEN" in closed["do"]
    without = ray_of(RAY_TOKEN, workers={"max": 1, "gpus": 1})
    assert without["verdict"] == "note" and without["said"].endswith("none of the GPUs that the job wants")


@pytest.mark.slow
def test_input_that_the_cluster_refuses_gives_exit_code_two_and_its_sentence(
    cluster: Cluster, models: Path, tmp_path: Path
) -> None:
    job = write_job(tmp_path / "job.yaml", job_mapping(models, tmp_path / "nowhere.jsonl", tmp_path / "store"))
    code, out, err = finish(start(job, cluster))
    assert code == 2, out + err
    assert "nowhere.jsonl' does not exist" in out, err  # the job's log
    assert "refused its input; the last line of its log says why" in err.splitlines()[-1]
    assert not (tmp_path / "store").exists()


@pytest.mark.slow
def test_a_job_runs_with_its_log_here_and_submitted_again_resumes(
    cluster: Cluster, models: Path, tmp_path: Path
) -> None:
    job = write_job(tmp_path / "job.yaml", job_mapping(models, Path("c.jsonl"), Path("store")))
    (tmp_path / "c.jsonl").write_bytes((models / "c.jsonl").read_bytes())  # the job names both by relative paths
    code, out, err = finish(start(job, cluster))
    assert code == 0, out + err
    assert "3 units to do" in out
    assert "60 documents" in out
    (run,) = read_runs(str(tmp_path / "store"))
    assert run.submission in jobs(cluster) and f"submitted as {run.submission}" in err
    assert run.log is None or "3 units to do" in Path(run.log).read_text(encoding="utf-8")
    assert FeatureStore.open(str(tmp_path / "store")).verify().ok
    (tmp_path / "store" / "parts" / "part-000001.parquet").unlink()
    code, out, err = finish(start(job, cluster, "--json", "--workers", "1"))
    assert code == 0, out + err
    assert json.loads(out)["status"] == "SUCCEEDED"
    assert "1 unit to do (2 are there)" in err  # with --json the log goes to stderr
    assert FeatureStore.open(str(tmp_path / "store")).verify().ok


@pytest.mark.slow
def test_a_label_job_runs_there_and_its_table_is_here(cluster: Cluster, models: Path, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", questions(20))
    mapping = label_mapping(answering_model(models), Path(rows.name), Path("out/labels.parquet"))
    job = write_job(tmp_path / "label.yaml", mapping)
    code, out, err = finish(start(job, cluster, "--json"))
    assert code == 0, out + err
    assert json.loads(out)["store"] == str(tmp_path / "out" / "labels.parquet.parts")
    assert "labels.parquet: 20 prompts" in err
    table = tmp_path / "out" / "labels.parquet"
    assert pq.read_table(table).column("error").null_count == 20
    before = table.read_bytes()
    write_job(job, {**mapping, "task": {**mapping["task"], "by": "per_token"}})
    (tmp_path / "out" / "labels.parquet.parts").rename(tmp_path / "parts of before")
    code, out, err = finish(start(job, cluster))
    assert code == 2 and "--overwrite" in out and table.read_bytes() == before
    code, out, err = finish(start(job, cluster, "--overwrite"))
    assert code == 0, out + err
    assert pq.read_metadata(table).num_rows == 20 and table.read_bytes() != before


def test_overwrite_is_for_label_jobs(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = write_job(tmp_path / "job.yaml", job_mapping(models, models / "c.jsonl", tmp_path / "store"))
    assert main(["submit", str(job), "--address", "http://127.0.0.1:1", "--overwrite"]) == 2
    assert "--overwrite is for the table of a label job" in capsys.readouterr().err


@pytest.mark.slow
def test_a_job_that_fails_gives_exit_code_one(cluster: Cluster, models: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "c.jsonl"
    corpus.write_text('{"text": "a text"}\n{"text": null}\n', encoding="utf-8")
    job = write_job(
        tmp_path / "job.yaml",
        job_mapping(models, corpus, tmp_path / "store", corpus={"id": None, "keep": [], "max_errors": 0}),
    )
    code, out, err = finish(start(job, cluster))
    assert code == 1, out + err
    assert "failed (exit code 1); its log says why, and submitting it again resumes it" in err.splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_stops_the_job_and_what_is_done_stays(cluster: Cluster, models: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", 6_000, max_words=60)
    job = write_job(tmp_path / "job.yaml", job_mapping(models, corpus, tmp_path / "store", units={"documents": 100}))
    process = start(job, cluster)
    eventually(lambda: list((tmp_path / "store" / "parts").glob("*.parquet")))
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code == 130, err
    assert "stopping sparsemill-" in err
    assert "parts that are done stay" in err
    submission_id = err.split("stopping ", 1)[1].split(";")[0]
    assert jobs(cluster)[submission_id] == "STOPPED"
    done = len(list((tmp_path / "store" / "parts").glob("*.parquet")))
    assert 0 < done < 60
    code, out, err = finish(start(job, cluster))
    assert code == 0, out + err
    assert f"({done} are there)" in out or "are there)" in out
    assert FeatureStore.open(str(tmp_path / "store")).complete


@pytest.mark.slow
def test_a_job_outlives_its_submitter_and_is_followed_by_the_next(
    cluster: Cluster, models: Path, tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", 4_000, max_words=60)
    job = write_job(tmp_path / "job.yaml", job_mapping(models, corpus, tmp_path / "store", units={"documents": 100}))
    code, out, err = finish(start(job, cluster, "--detach"))
    assert code == 0, err
    submission_id = out.split(":")[0]
    assert f"`sparsemill stop {job} --address {cluster.dashboard}` stops it,\n" in out
    assert f"`sparsemill status {tmp_path / 'store'}` says how far it is" in out
    process = start(job, cluster)
    eventually(lambda: list((tmp_path / "store" / "parts").glob("*.parquet")))
    process.kill()  # a closed laptop
    process.communicate()
    assert jobs(cluster)[submission_id] == "RUNNING"
    code, out, err = finish(start(job, cluster))
    assert code == 0, out + err
    assert f"running there already as {submission_id}; following it" in err
    assert "4,000 documents" in out
    assert list(jobs(cluster).values()).count("RUNNING") == 0


@pytest.mark.slow
def test_stop_ends_the_submitted_job_of_this_store_and_no_other(cluster: Cluster, models: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", 6_000, max_words=60)
    ours, theirs = (
        write_job(
            tmp_path / f"{name}.yaml", job_mapping(models, corpus, tmp_path / f"store-{name}", units={"documents": 100})
        )
        for name in ("ours", "theirs")
    )
    edited = write_job(
        tmp_path / "edited.yaml",
        job_mapping(models, corpus, tmp_path / "store-ours", units={"documents": 100}, workers={"max": 2}),
    )
    submitted = [finish(start(job, cluster, "--detach"))[1].split(":")[0] for job in (theirs, ours)]
    eventually(lambda: list((tmp_path / "store-ours" / "parts").glob("*.parquet")))
    command = [sys.executable, "-m", "sparsemill", "stop", str(edited), "--address", cluster.dashboard]
    done = subprocess.run([*command, "--json"], env=with_token(), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stopped"] == [submitted[1]]
    assert (jobs(cluster)[submitted[1]], jobs(cluster)[submitted[0]]) == ("STOPPED", "RUNNING")
    again = subprocess.run(command, env=with_token(), capture_output=True, text=True, timeout=PATIENCE)
    assert again.returncode == 1
    assert "nothing runs on" in again.stderr.splitlines()[-1]
    command[4] = str(theirs)  # without the cluster's address: through the store
    done = subprocess.run(command[:5], env=with_token(), capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    eventually(lambda: jobs(cluster)[submitted[0]] == "FAILED")  # that is: with an exit code


@pytest.mark.slow
def test_no_file_of_the_cluster_holds_the_nodes_secret(cluster: Cluster, models: Path, tmp_path: Path) -> None:
    job = write_job(tmp_path / "job.yaml", job_mapping(models, models / "c.jsonl", tmp_path / "store"))
    code, out, err = finish(start(job, cluster))
    assert code == 0, out + err
    for path in [*cluster.files.rglob("*"), *tmp_path.rglob("*")]:
        if path.is_file() and not path.is_symlink():
            assert b"hf_onthenodes" not in path.read_bytes(), path
            assert RAY_TOKEN.encode() not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:8265", "no URL of a Ray dashboard"),
        ("auto", "no URL of a Ray dashboard"),
        ("ray://127.0.0.1:10001", "no URL of a Ray dashboard"),
        ("http://me:verysecret@127.0.0.1:8265", "RAY_AUTH_TOKEN"),
        ("http://127.0.0.1:1", "was not reached, or refused (Failed to connect"),
    ],
)
def test_an_address_that_is_none_is_refused_in_one_sentence(
    models: Path, tmp_path: Path, address: str, says: str
) -> None:
    job = load_job(write_job(tmp_path / "job.yaml", job_mapping(models, models / "c.jsonl", tmp_path / "store")))
    with pytest.raises(UsageError) as refusal:
        submit(job, address, print, print)
    assert says in str(refusal.value)
    assert "verysecret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("variable", ["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"])
def test_the_address_that_is_said_counts_and_not_that_of_the_shell(
    cluster: Cluster, models: Path, tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's client would take the variable's cluster, and run a job somewhere else than it was told to."""
    for name, value in with_token().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(variable, cluster.dashboard)
    job = load_job(write_job(tmp_path / "job.yaml", job_mapping(models, models / "c.jsonl", tmp_path / "store")))
    before = jobs(cluster)
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:1 was not reached"):
        submit(job, "http://127.0.0.1:1", print, print, detach=True)
    with pytest.raises(UsageError, match=r"127\.0\.0\.1:1 was not reached"):
        stop_submitted(job.store, "http://127.0.0.1:1", print)
    assert os.environ[variable] == cluster.dashboard
    assert jobs(cluster) == before


def test_what_is_sent_is_code_and_job_without_weights_and_caches(models: Path, tmp_path: Path) -> None:
    mapping = job_mapping(models, Path("c.jsonl"), Path("out/store"), pool=["sum"], model={"chat": False})
    job = job_from_mapping(mapping, tmp_path)
    with working_directory(as_json(job)) as directory:
        assert load_job(directory / JOB_NAME) == job
        assert job.store == str(tmp_path / "out" / "store")
        assert sorted(path.name for path in directory.iterdir()) == [
            "featurestore",
            JOB_NAME,
            "ray_jobs",
            "sparsemill",
        ]
        sent = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
        assert sent < 2_000_000
        code = "import sys, os; sys.path = [p for p in sys.path if p]; sys.path.insert(0, os.getcwd());"
        code += "import ray_jobs.cli, featurestore; print(ray_jobs.cli.__file__)"
        done = subprocess.run([sys.executable, "-P", "-c", code], cwd=directory, capture_output=True, text=True)
        assert done.stdout.startswith(str(directory)), done.stderr
    assert not directory.exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("working_dir: .", "working_dir is what submit sends itself"),
        ("env_vars: {HF_TOKEN: abc}", "env_vars.HF_TOKEN looks like a secret"),
        ("env_vars: {AWS_SECRET_ACCESS_KEY: abc}", "looks like a secret"),
        ("env_vars: {STORE: 's3://a:verysecret@b'}", "looks like a secret"),
        ("pip: ['x @ git+https://verysecret@github.com/a/b']", "pip.0 looks like a secret"),
        ("pip: {packages: [x], pip_install_options: ['--index-url=https://me:verysecret@host/simple']}", "pip_install"),
        ("py_modules: ['s3://a:verysecret@b/x.zip']", "py_modules.0 looks like a secret"),
        ("env_vars: {N: 3}", "put quotes around it"),
        ("env_vars: [a]", "must be a mapping"),
        ("- a", "a spec is a mapping"),
        ("", "is empty"),
        ("A=1\nB=2", "a spec is a mapping"),
        ("{env_vars: {A: 'b'}", "not valid YAML"),
        ("\0\1\2", "not valid YAML"),
        ("env_var: {A: 'b'}", "Ray knows no 'env_var' in a runtime environment; did you mean 'env_vars'?"),
        ("pips: [a]", "did you mean 'pip'?"),
        ("requirements: [a]", "Ray knows no 'requirements' in a runtime environment; it knows conda, config"),
        ("config: {setup_timeout: 90}", "no 'config.setup_timeout' in a runtime environment; did you mean 'setup_"),
        ("pip: {package: [a]}", "no 'pip.package' in a runtime environment; did you mean 'packages'?"),
        ("pip: {packages: [a], pip_check: 3}", "Ray refuses it"),
        ("pip: nowhere.txt", "nowhere.txt"),
        ("{pip: [a], conda: b}", "Ray refuses it (The 'pip' field"),
    ],
)
def test_a_runtime_environment_with_secrets_or_faults_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "env.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(JobSpecError) as refusal:
        load_runtime_env(path)
    assert says in str(refusal.value)
    assert "verysecret" not in str(refusal.value)


def test_a_job_with_a_secret_is_not_sent(models: Path, tmp_path: Path) -> None:
    job = job_from_mapping(job_mapping(models, models / "c.jsonl", tmp_path / "store"), tmp_path)
    with pytest.raises(JobSpecError, match=r"the URL in 'store' carries a user and password") as refusal:
        submit(job.model_copy(update={"store": "s3://a:verysecret@b/x"}), "http://127.0.0.1:1", print, print)
    assert "verysecret" not in str(refusal.value)


def test_a_harmless_runtime_environment_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "env.yaml"
    path.write_text("env_vars: {HF_HUB_OFFLINE: '1', TOKENIZERS_PARALLELISM: 'false'}\n", encoding="utf-8")
    assert load_runtime_env(path) == {"env_vars": {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}}


def test_submit_without_an_address_says_what_is_missing(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "RAY_API_SERVER_ADDRESS"}
    command = [sys.executable, "-m", "sparsemill", "submit", "job.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert "--address is missing" in done.stderr


def test_truth_values_of_a_runtime_environment_reach_ray_as_such(tmp_path: Path) -> None:
    path = tmp_path / "env.yaml"
    path.write_text("pip: {packages: [a], pip_check: no}\nconfig: {eager_install: true, setup_timeout_seconds: 90}\n")
    runtime_env = load_runtime_env(path)
    assert runtime_env["pip"]["pip_check"] is False
    assert runtime_env["config"] == {"eager_install": True, "setup_timeout_seconds": 90}
