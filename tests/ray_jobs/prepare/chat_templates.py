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
