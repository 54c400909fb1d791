"""Chat templates in the manner of four families, on the tiny tokenizer, and conversations to try them on."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.tiny import tiny_texts

GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}<|start|>system<|end|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: {{ strftime_now('%d %b %Y') }}\n\n<|eot|>"
    "{% for m in messages %}<|start|>{{ m['role'] }}<|end|>\n\n{{ m['content'] | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
MISTRAL = "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
QWEN = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WALLED = "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['content'] }}<end_of_turn>{% endfor %}"
"""One that leaves texts alone between control tokens: its parts can be tokenised by themselves."""
SHOUTING = "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['content'] | upper }}{% endfor %}"

OF_TURNS = {
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\n\n' %}"
        "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
        "{% for m in rest %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
        "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ first if loop.first else '' }}"
        "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
        "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
    ),
    "llama-3": (
        "{{ bos_token }}<|start|>system<|end|>\n\nToday Date: {{ strftime_now('%d %b %Y') }}\n\n"
        "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}"
        "{% set messages = messages[1:] %}{% endif %}<|eot|>"
        "{% for m in messages %}<|start|>{{ m['role'] }}<|end|>\n\n{{ m['content'] | trim }}<|eot|>"
        "{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
    ),
    "mistral": (
        "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
        "{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}{{ bos_token }}"
        "{% for m in turns %}{% if m['role'] == 'user' %}{{ '[INST] ' }}"
        "{% if loop.last and system is defined %}{{ system + '\n\n' }}{% endif %}"
        "{{ m['content'] }} [/INST]{% else %}{{ ' ' + m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "qwen": (
        "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nBe helpful.<|im_end|>\n{% endif %}"
        "{% for m in messages %}{% set text = m['content'] %}{% if m['role'] == 'assistant' and '</think>' in text %}"
        "{% set text = text.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>{{ m['role'] }}\n{{ text }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
}
"""Of conversations: the system's turn in the first or the last user's, roles that have to alternate, thoughts cut."""

TEMPLATES = {"gemma": GEMMA, "llama-3": LLAMA_3, "mistral": MISTRAL, "qwen": QWEN}
MERGES = (("\n", "\n"), ("▁", "["), ("]", "▁"), ("\n", "t"), (">", "\n"), ("▁", "▁"))
"""Pieces that a text and a template can make together, beyond those of the tiny tokenizer."""
CONTROL = ("<|start|>", "<|end|>", "<|eot|>", "<|im_start|>", "<|im_end|>")


def with_template(model: Path, directory: Path, template: str) -> Path:
    """A copy of a tiny checkpoint with another template, more control tokens and pieces across its borders.

    Its own ids are as they were; new control tokens have no embedding, so what counts here is ids alone.
    """
    path = Path(shutil.copytree(model, directory / model.name))
    file = path / "tokenizer.json"
    state = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = state["model"]["vocab"]
    spare = [f"<0x{byte:02X}>" for byte in (0xC0, 0xC1, *range(0xF5, 0x100))]  # bytes that UTF-8 never has
    for new in [*CONTROL, "[", "]", *("".join(pair) for pair in MERGES)]:
        if new not in vocabulary:
            vocabulary[new] = vocabulary.pop(spare.pop())
    state["model"]["merges"] = [list(pair) for pair in MERGES] + state["model"]["merges"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    state["added_tokens"] += [{"id": vocabulary[content], "content": content, **flags} for content in CONTROL]
    state["added_tokens"].sort(key=lambda token: token["id"])
    file.write_text(json.dumps(state), encoding="utf-8")
    (path / "chat_template.jinja").write_text(template, encoding="utf-8")
    return path


def conversations(n: int, seed: int = 0) -> Iterator[str]:
    """Texts of one user's turn: words, with blanks and marks at their ends, and some that look like markup."""
    rng = random.Random(seed)
    ends = ["", "", " ", "  ", "\n", "\n\n", "\t", " \n", "[", "]", "<", ">", "\u3000", "🙂", "the", "t", "(", "0", "é"]
    inside = ["<b>x</b>", "{{ x }}", "a\n\nb", "[1]", "user\n", "assistant", "INST]", "\r\n", "<end"]
    for text in tiny_texts(n, seed=seed, max_words=20):
        middle = f" {rng.choice(inside)} " if rng.random() < 0.3 else " "
        yield f"{rng.choice(ends)}{text[: len(text) // 2]}{middle}{text[len(text) // 2 :]}{rng.choice(ends)}"


def many_turns(n: int, seed: int = 0) -> Iterator[list[dict[str, str]]]:
    """Conversations of one to seven turns, some behind a system prompt, some with what an assistant has thought."""
    rng = random.Random(seed)
    texts = conversations(8 * n, seed=seed)
    for _ in range(n):
        turns = [{"role": "system", "content": next(texts)}] if rng.random() < 0.4 else []
        for number in range(rng.randint(1, 7)):
            role = ("user", "assistant")[number % 2]
            thought = "<think>\nso?</think>\n\n" if role == "assistant" and rng.random() < 0.3 else ""
            turns.append({"role": role, "content": thought + next(texts)})
        yield turns


def turns_by_transformers(
    tokenizer: Any, messages: list[dict[str, str]], roles: tuple[str, ...], **options: Any
) -> tuple[list[int], list[int]]:
    """Ids of a conversation's rendering, and the places of those of which a character is of turns of such roles."""

    def said(turns: list[dict[str, str]]) -> str:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, **options))

    whole, wanted = said(messages), set()
    offsets = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    for number, turn in enumerate(messages):
        if turn["role"] in roles:
            other = said([*messages[:number], {**turn, "content": "\u2603"}, *messages[number + 1 :]])
            first = other.index("\u2603")
            last = len(whole) - (len(other) - first - 1)
            assert whole[first:last] in turn["content"]
            wanted |= {place for place, (start, stop) in enumerate(offsets) if start < last and stop > first}
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options), sorted(wanted)


def by_transformers(tokenizer: Any, text: str, **options: Any) -> tuple[list[int], list[int]]:
    """Ids of the template's rendering, and the places of those of which a character is the text's."""
    messages = [{"role": "user", "content": text}]
    ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
    whole = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    shown = text.strip() if "| trim" in tokenizer.chat_template else text
    # The text stands where the rendering of another one of no common letter begins to differ, from either side.
    other = tokenizer.apply_chat_template([{"role": "user", "content": "\u2603"}], tokenize=False, **options)
    first = other.index("\u2603")
    last = len(whole) - (len(other) - first - 1)
    assert whole[first:last] == shown
    offsets = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return ids, [place for place, (start, stop) in enumerate(offsets) if start < last and stop > first]
