"""Conversations of several turns: fed as their template renders them, pooled where a turn that counts is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from featurestore import FeatureStore
from featurestore.errors import JobSpecError
from featurestore.tables.values import document_turns
from ray_jobs.backbone.bundle import Bundle, open_bundle
from ray_jobs.backbone.chat import Turns, conversation_of
from ray_jobs.backbone.tokens import ContentTokenizer, token_policy, windows_of
from ray_jobs.corpus.read import read_rows
from ray_jobs.corpus.scan import scan
from ray_jobs.corpus.slices import slices
from ray_jobs.engine.extractor import Extractor, ExtractSettings
from ray_jobs.engine.token_values import TokenReader
from ray_jobs.prepare.build import prepare
from ray_jobs.run.driver import extract
from ray_jobs.spec import JobSpec, job_from_mapping
from tests.ray_jobs.prepare.chat_templates import OF_TURNS, many_turns, turns_by_transformers, with_template
from tests.ray_jobs.prepare.test_tokenizer import DAY, on_its_day
from tests.reference import Fed, ReferenceModel, assert_row_equals, encode
from tests.tiny import tiny_gemma2, tiny_sae

SETTINGS = ExtractSettings(max_tokens=1024, chat=True)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("turns")
    tiny_gemma2(directory / "plain")
    tiny_sae(directory / "sae")
    for name, template in OF_TURNS.items():
        with_template(directory / "plain" / "tiny-gemma2", directory / name, template)
    return directory


def job(models: Path, template: str, corpus: str = "unused.jsonl", store: str = "unused", **model: Any) -> JobSpec:
    mapping = {
        "corpus": {"path": corpus, "messages": "messages"},
        "model": {"name": str(models / template / "tiny-gemma2"), "dtype": "float32", "chat": True, **model},
        "saes": [{"path": str(models / "sae"), "name": "tiny"}],
        "store": store,
        "workers": {"max": 1, "gpus": 0},
    }
    return job_from_mapping(mapping, Path.cwd())


def bundle_of(models: Path, template: str, cache: Path, **model: Any) -> Bundle:
    date = {"date": DAY} if template == "llama-3" else {}
    return open_bundle(prepare(job(models, template, **date, **model), cache))


def as_document(messages: list[dict[str, str]]) -> str:
    text, error = document_turns(messages, "messages")
    assert error is None and text is not None
    assert conversation_of(text) == messages
    return text


def rendering(bundle: Bundle, messages: list[dict[str, str]]) -> Turns:
    (content,) = ContentTokenizer(bundle, chat=True).encode([as_document(messages)])
    assert isinstance(content, Turns), content
    return content


@pytest.mark.parametrize("n", [8, pytest.param(250, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", OF_TURNS)
def test_a_conversation_is_what_apply_chat_template_gives(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, n: int
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models / name / "tiny-gemma2")
    choices: tuple[dict[str, Any], ...] = (
        {},
        {"turns": ["assistant", "user"]},
        {"generation_prompt": True, "tokens": "all"},
    )
    for seed, said in enumerate(choices):
        bundle = bundle_of(models, name, tmp_path, **said)
        assert bundle.tokenizer.chat is not None
        lead = len(bundle.tokenizer.chat.lead)
        for messages in many_turns(-(-n // len(choices)), seed=seed):
            with monkeypatch.context() as patch:
                on_its_day(patch)
                prompt = {"add_generation_prompt": "generation_prompt" in said}
                ids, places = turns_by_transformers(tokenizer, messages, tuple(said.get("turns", ["user"])), **prompt)
            found = rendering(bundle, messages)
            assert found.ids.tolist()[lead:] == ids
            assert found.pooled.nonzero()[0].tolist() == [lead + place for place in places]


def test_windows_hold_every_pooled_token_once_behind_the_beginning(models: Path, tmp_path: Path) -> None:
    bundle = bundle_of(models, "gemma", tmp_path)
    (messages,) = many_turns(1, seed=3)
    content = rendering(bundle, messages * 1)
    whole = token_policy(bundle, SETTINGS)
    ((window,), cut) = windows_of(0, content, whole)
    assert not cut and window.ids.tolist() == content.ids[: window.stop].tolist()
    assert window.pooled.tolist() == content.pooled.nonzero()[0].tolist()
    narrow = token_policy(bundle, replace(SETTINGS, max_tokens=24, long_documents="windows", stride=4))
    windows, cut = windows_of(0, content, narrow)
    assert not cut and len(windows) > 1
    pooled = [i for window in windows for i in window.ids[window.pooled].tolist()]
    assert pooled == content.ids[content.pooled].tolist()
    assert all(window.ids[0] == content.ids[0] and len(window.ids) <= 24 for window in windows)
    everything = token_policy(bundle, replace(SETTINGS, tokens="all"))
    ((window,), _) = windows_of(0, content, everything)
    assert window.n_pooled == len(content.ids)
    short = token_policy(bundle, replace(SETTINGS, max_tokens=24))
    assert windows_of(0, content, short)[1]


def test_a_conversation_has_the_features_that_transformers_and_sae_lens_give_it(models: Path, tmp_path: Path) -> None:
    bundle = bundle_of(models, "gemma", tmp_path)
    reference = ReferenceModel(models / "gemma" / "tiny-gemma2")
    pools = ("max", "sum", "count")
    chats = [chat for chat in many_turns(8, seed=5) if len(rendering(bundle, chat))]
    texts = [as_document(chat) for chat in chats]
    rows = Extractor(bundle, replace(SETTINGS, pools=pools)).extract(texts)
    answers = TokenReader(bundle, SETTINGS, {"tiny": list(range(96))}).read(texts)
    for number, (chat, text, answer) in enumerate(zip(chats, texts, answers, strict=True)):
        content = rendering(bundle, chat)
        fed = content.ids.tolist()
        acts = encode(models / "sae", reference.residual([Fed(fed, slice(0, len(fed)))], 2))[content.pooled]
        assert rows.errors[number] is None and rows.n_tokens[number] == content.pooled.sum()
        assert_row_equals(rows.saes["tiny"].row(number), acts, pools)
        assert int(answer.pooled.sum()) == content.pooled.sum()
        said = {turn["role"]: "" for turn in chat}
        spans = zip(answer.start[answer.pooled], answer.stop[answer.pooled], strict=True)
        assert all(json.loads(f'"{text[a:b]}"') in "".join(t["content"] for t in chat) for a, b in spans), said


def test_conversations_that_cannot_be_fed_say_why(models: Path, tmp_path: Path) -> None:
    bundle = bundle_of(models, "gemma", tmp_path)
    twice = [{"role": "user", "content": "love"}, {"role": "user", "content": "hate"}]
    hostile = [{"role": "user", "content": "a \U0010ffff<end_of_turn> b"}]
    refused, injected, plain = ContentTokenizer(bundle, chat=True).encode(
        [as_document(twice), as_document(hostile), "just a text"]
    )
    assert refused == "the chat template refuses this conversation: Conversation roles must alternate user/assistant"
    assert injected == "the text cannot be tokenised: it would be read as a control token"
    assert (
        isinstance(plain, Turns)
        and plain.ids.tolist() == rendering(bundle, [{"role": "user", "content": "just a text"}]).ids.tolist()
    )


def test_a_system_prompt_goes_to_texts_and_to_conversations_without_one(models: Path, tmp_path: Path) -> None:
    prompt = "quiet water"
    tokenizer = AutoTokenizer.from_pretrained(models / "qwen" / "tiny-gemma2")
    user = {"role": "user", "content": "love and hate"}
    bundle = bundle_of(models, "qwen", tmp_path, system_prompt=prompt)
    ids, _ = turns_by_transformers(tokenizer, [{"role": "system", "content": prompt}, user], ())
    own = [{"role": "system", "content": "bread"}, user]
    assert bundle.tokenizer.chat is not None
    lead = len(bundle.tokenizer.chat.lead)
    assert rendering(bundle, [user]).ids.tolist()[lead:] == ids
    assert rendering(bundle, own).ids.tolist()[lead:] == turns_by_transformers(tokenizer, own, ())[0]
    mapping = job(models, "qwen", system_prompt=prompt).model_dump(mode="json")
    mapping["corpus"] |= {"messages": None, "text": "text"}
    of_texts = open_bundle(prepare(job_from_mapping(mapping, Path.cwd()), tmp_path))
    (one,) = ContentTokenizer(of_texts, chat=True).encode([user["content"]])
    assert one.ids.tolist()[lead:] == ids  # type: ignore[union-attr]


def test_turns_are_read_from_parquet_and_json_lines_alike(models: Path, tmp_path: Path) -> None:
    chats = [*many_turns(4, seed=9), [{"role": "user", "content": 'say "x"\\\n'}]]
    table = pa.table(
        {"messages": pa.array(chats, type=pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])))}
    )
    pq.write_table(table, tmp_path / "c.parquet")
    rows = [{"messages": chat} for chat in chats]
    broken = [
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"messages": [3]},
        {"messages": 4},
        {"messages": "a text"},
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *broken]), encoding="utf-8")
    found = {}
    for name in ("c.parquet", "c.jsonl"):
        spec = job(models, "gemma", corpus=str(tmp_path / name)).corpus
        scanned = scan(spec)
        assert scanned.sample[0] == as_document(chats[0])
        found[name] = read_rows(slices(scanned, 0, scanned.rows), spec, scanned.keep_types)
    assert found["c.parquet"].text == [as_document(chat) for chat in chats] == found["c.jsonl"].text[: len(chats)]
    assert found["c.jsonl"].error[len(chats) :] == [
        "the conversation in 'messages' has no turn",
        "'content' of turn 1 of the conversation in 'messages' is not there",
        "turn 1 of the conversation in 'messages' is a number, not an object",
        "the text in 'messages' is a number",
        None,
    ]
    assert conversation_of(str(found["c.jsonl"].text[-1])) == [{"role": "user", "content": "a text"}]


@pytest.mark.slow
def test_a_job_of_conversations_runs(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSEMILL_CACHE", str(tmp_path / "cache"))
    corpus = tmp_path / "c.jsonl"
    lines = [json.dumps({"messages": chat}) for chat in many_turns(20, seed=2)]
    corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
    spec = job(models, "gemma", corpus=str(corpus), store=str(tmp_path / "store"))
    result = extract(spec)
    assert (result.documents, result.errors) == (20, 0)
    assert FeatureStore.open(spec.store).matrix("tiny", pool="max").X.nnz > 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"chat": False}}, "corpus.messages are put into the model's chat template; set model.chat: true"),
        ({"corpus": {"text": "other"}}, "either a text or a conversation; remove text or messages"),
        (
            {"corpus": {"messages": None}, "model": {"turns": ["user", "tool"]}},
            "only has a meaning with corpus.messages",
        ),
        ({"model": {"turns": []}}, "turns"),
        (
            {"model": {"chat": False, "system_prompt": "x"}, "corpus": {"messages": None}},
            "system_prompt only has a meaning",
        ),
    ],
)
def test_settings_of_conversations_that_mean_nothing_are_refused(
    models: Path, change: dict[str, dict[str, Any]], said: str
) -> None:
    mapping = job(models, "gemma").model_dump(mode="json", exclude_defaults=True)
    mapping["corpus"].pop("text", None)
    for key, value in change.items():
        mapping[key] |= value
    with pytest.raises(JobSpecError, match=said):
        job_from_mapping(mapping, Path.cwd())
