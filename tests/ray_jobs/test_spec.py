"""What JOB.yaml may say, and how it is told what is wrong."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from featurestore.errors import JobSpecError
from ray_jobs.corpus.scan import scan
from ray_jobs.spec import JobSpec, job_from_mapping, load_job

JOB: dict[str, Any] = {
    "corpus": {"path": "reviews/*.parquet", "text": "text", "id": "id", "keep": ["label", "lang"]},
    "model": {"name": "google/gemma-2-2b", "dtype": "bfloat16", "max_tokens": 1024},
    "saes": [{"release": "gemma-scope-2b-pt-res-canonical", "id": "layer_12/width_16k/canonical", "name": "l12_16k"}],
    "pool": ["max", "sum", "count"],
    "hidden": ["mean", "last"],
    "store": "s3://bucket/reviews-gemma-2-2b",
    "workers": {"max": 8, "gpus": 1},
}


def job(changes: dict[str, Any] | None = None, base_dir: str | Path = "/base") -> JobSpec:
    """The example job, with values replaced by key path ("model.max_tokens", "saes.0.id"); ... removes a key."""
    mapping = copy.deepcopy(JOB)
    for path, value in (changes or {}).items():
        *way, last = path.split(".")
        here: Any = mapping
        for step in way:
            here = here[int(step)] if step.isdigit() else here.setdefault(step, {})
        if value is ...:
            del here[last]
        else:
            here[last] = value
    return job_from_mapping(mapping, base_dir, where="job.yaml")


def refusal(changes: dict[str, Any]) -> str:
    with pytest.raises(JobSpecError) as caught:
        job(changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_example_of_the_documentation_is_a_job() -> None:
    spec = job()
    assert spec.corpus.keep == ("label", "lang")
    assert spec.saes[0].name == "l12_16k"
    assert (spec.workers.max, spec.workers.gpus, spec.workers.cpus) == (8, 1.0, None)
    assert (spec.model.tokens, spec.model.chat, spec.model.long_documents) == ("content", False, "truncate")
    assert (spec.units.documents, spec.value_bits) == (None, 8)


def test_a_job_needs_only_corpus_model_saes_and_store() -> None:
    spec = job_from_mapping(
        {"corpus": {"path": "a.jsonl"}, "model": {"name": "m"}, "saes": [{"path": "s"}], "store": "out"}, "/base"
    )
    assert (spec.corpus.text, spec.corpus.id, spec.pool, spec.hidden) == ("text", None, ("max", "sum", "count"), ())


def test_a_job_is_frozen_and_hashable() -> None:
    spec = job()
    assert hash(spec) == hash(job())
    with pytest.raises(ValueError, match="frozen"):
        spec.store = "elsewhere"  # type: ignore[misc]


def test_a_job_file_is_read_with_paths_relative_to_its_own_directory(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "model-dir").mkdir()
    path = tmp_path / "jobs" / "job.yaml"
    mapping = {
        "corpus": {"path": ["../data/*.jsonl", "/abs/b.csv", "hf://datasets/x/y.parquet"]},
        "model": {"name": "model-dir"},
        "saes": [{"path": "../saes/mine"}],
        "store": "store",
    }
    path.write_text(yaml.safe_dump(mapping))
    spec = load_job(path)
    assert spec.corpus.path == (f"{tmp_path}/data/*.jsonl", "/abs/b.csv", "hf://datasets/x/y.parquet")
    assert spec.model.name == f"{tmp_path}/jobs/model-dir"
    assert spec.saes[0].path == f"{tmp_path}/saes/mine"
    assert spec.store == f"{tmp_path}/jobs/store"


def test_a_jobs_own_directory_is_never_a_pattern(tmp_path: Path) -> None:
    for folder, text in (("run[12]", "mine"), ("run1", "theirs"), ("run{1,2}", "mine"), ("run?*", "mine")):
        (tmp_path / folder / "data").mkdir(parents=True)
        (tmp_path / folder / "data" / "x.jsonl").write_text(json.dumps({"text": text}))
        mapping = {
            "corpus": {"path": "data/*.jsonl"},
            "model": {"name": "m"},
            "saes": [{"path": "sae"}],
            "store": "out/store",
        }
        (tmp_path / folder / "job.yaml").write_text(yaml.safe_dump(mapping))
    for folder in ("run[12]", "run{1,2}", "run?*"):
        spec = load_job(tmp_path / folder / "job.yaml")
        assert scan(spec.corpus).sample == ("mine",)
        # As the job is recorded, and as it goes to a cluster:
        assert job_from_mapping(spec.model_dump(mode="json"), "/elsewhere[0]") == spec
        assert spec.store == f"{tmp_path}/{folder}/out/store"


@pytest.mark.parametrize(
    ("name", "resolved"),
    [
        ("google/gemma-2-2b", "google/gemma-2-2b"),
        ("gpt2", "gpt2"),
        ("./gemma", "/base/gemma"),
        ("../gemma", "/gemma"),
        ("weights/m.gguf", "/base/weights/m.gguf"),
        ("a/b/c", "/base/a/b/c"),
        ("/abs/gemma", "/abs/gemma"),
    ],
)
def test_a_model_name_is_a_path_only_where_it_cannot_be_a_hub_name(name: str, resolved: str) -> None:
    assert job({"model.name": name}).model.name == resolved


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"release": "r", "id": "layer_12/width_16k/canonical"}, "l12_16k"),
        ({"release": "r", "id": "layer_9_width_131k_l0_small"}, "l9_131k"),
        ({"release": "r", "id": "blocks.8.hook_resid_post"}, "l8"),
        ({"path": "saes/mine-2"}, "mine_2"),
        ({"path": "saes/2024"}, "sae_2024"),
    ],
)
def test_an_sae_without_a_name_gets_one_from_its_source(source: dict[str, str], name: str) -> None:
    assert job({"saes": [source]}).saes[0].name == name


def test_the_order_and_form_of_poolings_in_the_file_do_not_matter() -> None:
    assert job({"pool": ["top20", "last", "sum", "top5", "max"]}).pool == ("max", "sum", "last", "top5", "top20")
    assert job({"pool": "max"}).pool == ("max",)
    assert job({"hidden": ["last", "mean"]}).hidden == ("mean", "last")


def test_stride_is_an_eighth_of_a_window_and_nothing_when_truncating() -> None:
    assert job().model.stride == 0
    assert job({"model.long_documents": "windows"}).model.stride == 128
    assert job({"model.long_documents": "windows", "model.stride": 10}).model.stride == 10


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"corpus.txet": "body"}, "unknown key 'corpus.txet'; did you mean 'text'?"),
        ({"saes.0.layr": 3}, "unknown key 'saes.0.layr'; did you mean 'layer'?"),
        ({"stroe": "x"}, "unknown key 'stroe'; did you mean 'store'?"),
        ({"store": ...}, "key 'store' is missing; add it"),
        ({"corpus.path": ...}, "key 'corpus.path' is missing; add it"),
        ({"corpus.path": []}, "'corpus.path': is empty; name at least one"),
        ({"corpus.path": 3}, "'corpus.path': must be a list"),
        ({"corpus.path": "a\0b"}, "holds a character that no file or column name can have"),
        ({"corpus.id": 5}, "'corpus.id': input should be a valid string, not 5"),
        ({"corpus.keep": ["label", "label"]}, "names 'label' twice; remove one"),
        ({"corpus.keep": ["doc_id"]}, "'doc_id' is a column that every store has already"),
        ({"corpus.keep": ["resid_post_9__hidden_mean"]}, "is the name of a hidden-state column"),
        ({"corpus.keep": ["l12_16k__max"]}, "clashes with the columns of an SAE"),
        (
            {"corpus.format": "json"},
            "'corpus.format': input should be 'parquet', 'jsonl', 'csv' or 'images', not 'json'",
        ),
        ({"corpus.max_errors": 1.0}, "'corpus.max_errors': 1.0 is neither a share below 1"),
        ({"corpus.max_errors": 20.5}, "nor a whole number of documents (1 is one document); write one of these"),
        ({"corpus.max_errors": -1}, "-1 is neither a share below 1"),
        ({"corpus.max_errors": True}, "true is neither a share below 1"),
        ({"corpus.max_errors": "50%"}, "'50%' is neither a share below 1"),
        ({"corpus.max_errors": float("nan")}, "nan is neither a share below 1"),
        ({"model": "gpt2"}, "'model'"),
        ({"model.max_tokens": 1}, "'model.max_tokens': input should be greater than or equal to 2, not 1"),
        ({"model.max_tokens": True}, "'model.max_tokens': input should be a valid integer, not true"),
        ({"model.max_tokens": "1024"}, "'model.max_tokens': input should be a valid integer, not '1024'"),
        ({"model.dtype": "float16"}, "'model.dtype': input should be 'bfloat16' or 'float32', not 'float16'"),
        ({"model.long_documents": "cut"}, "input should be 'truncate' or 'windows', not 'cut'"),
        ({"model.stride": 5}, "stride only has a meaning with long_documents: windows"),
        (
            {"model.long_documents": "windows", "model.max_tokens": 8, "model.stride": 7},
            "stride 7 leaves a window of max_tokens 8 no room for new tokens; set it to at most 6",
        ),
        ({"saes": []}, "'saes': is empty; name at least one"),
        ({"saes": {"path": "x"}}, "'saes': must be a list"),
        ({"saes.0.id": ...}, "an SAE needs a release and an id of sae-lens, or a path"),
        ({"saes.0.path": "x"}, "an SAE has either a path or a release and id, not both"),
        ({"saes.0.name": "a__b"}, "'a__b' cannot begin column names"),
        ({"saes.0.name": "9b"}, "'9b' cannot begin column names"),
        ({"saes": [{"path": "a/x"}, {"path": "b/x"}]}, "two SAEs are named 'x'; give each its own name"),
        ({"saes.0.layer": -1}, "'saes.0.layer': input should be greater than or equal to 0"),
        ({"pool": ["mean"]}, "'mean' is not stored but derived on reading"),
        ({"pool": ["top0"]}, "'top0' is no pooling; use max, sum, count, last or top followed by a number"),
        ({"pool": ["max", "max"]}, "'pool': names 'max' twice; remove one"),
        ({"pool": []}, "'pool': is empty; name at least one"),
        ({"hidden": ["max"]}, "input should be 'mean' or 'last', not 'max'"),
        ({"workers.max": 0}, "'workers.max': input should be greater than or equal to 1, not 0"),
        ({"workers.gpus": float("nan")}, "'workers.gpus': input should be a finite number"),
        ({"units.documents": 0}, "'units.documents': input should be greater than or equal to 1"),
        ({"value_bits": 25}, "'value_bits': input should be less than or equal to 24, not 25"),
        ({"store": ""}, "'store'"),
    ],
)
def test_a_mistake_is_refused_in_one_sentence_that_names_the_key(changes: dict[str, Any], sentence: str) -> None:
    message = refusal(changes)
    assert message.startswith("job.yaml: ")
    assert sentence in message


def test_a_missing_job_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(JobSpecError, match=r"nowhere\.yaml"):
        load_job(tmp_path / "nowhere.yaml")


def test_the_module_imports_nothing_heavy() -> None:
    heavy = "{'torch', 'ray', 'transformers', 'pyarrow', 'polars', 'numpy'}"
    code = f"import sys, ray_jobs.spec; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def image_job(**changes: Any) -> JobSpec:
    return job({"corpus.text": ..., "corpus.image": "image", **changes})


def test_a_job_of_images_pools_their_positions_and_needs_no_text() -> None:
    spec = image_job()
    assert (spec.corpus.text, spec.corpus.image, spec.model.tokens) == (None, "image", "image")
    assert image_job(**{"corpus.text": "caption", "model.tokens": "all"}).corpus.text == "caption"
    folder = job({"corpus.text": ..., "corpus.format": "images", "corpus.id": ...})
    assert (folder.corpus.image, folder.corpus.find_as, folder.model.tokens) == ("image", "image", "image")
    assert (spec.corpus.find_as, job().corpus.find_as) == ("table or image", None)
    assert job_from_mapping(spec.model_dump(mode="json"), "/") == spec  # as a store records it
    assert job().model.tokens == "content"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.tokens": "content"}, "model.tokens: content is for texts; images have image, text or all"),
        ({"model.chat": True}, "model.chat is for texts"),
        ({"model.long_documents": "windows"}, "model.long_documents: windows is for texts; an image is fed whole"),
        ({"corpus.keep": ["pixels"], "pixels": 8}, "the kept column 'pixels' clashes with that of pixels: 8"),
        ({"pixels": 65}, "'pixels'"),
    ],
)
def test_what_has_no_meaning_for_images_is_refused(changes: dict[str, Any], said: str) -> None:
    assert said in refusal({"corpus.text": ..., "corpus.image": "image", **changes})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.tokens": "image"}, "model.tokens: image only has a meaning for images; set corpus.image"),
        ({"model.prompt": "caption en"}, "model.prompt only has a meaning for images"),
        ({"pixels": 8}, "pixels only has a meaning for images"),
        ({"corpus.text": None}, "text"),
    ],
)
def test_what_only_images_have_is_refused_for_texts(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(changes)
