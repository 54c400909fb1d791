"""Make a tokenizer read control tokens in a document as plain text, so that no document can inject one.

A token is control where its tokenizer flags it as special. Many flag only some, so an added token that looks like a
marker (`<start_of_image>`, `[multimodal]`, `<|end|>`) is control too. HTML tags, runs of spaces and newlines, and words
are not: models read these as text in their training. Control tokens are no longer looked for in texts; where they are
pieces of the vocabulary as well, they get names that no text contains.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray_jobs.backbone.bundle import bundle_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MARKER = re.compile(r"[<\[{|].*\w.*[>\]}|]", re.DOTALL)
_TAG = re.compile(
    r"""</?(a|abbr|address|area|article|aside|audio|b|base|bbox|bdi|bdo|blockquote|body|br|button|canvas|caption|center
    |cite|code|col|colgroup|data|datalist|dd|del|details|dfn|dialog|div|dl|dt|em|embed|fieldset|figcaption|figure|font
    |footer|form|h[1-6]|head|header|hgroup|hr|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|map|mark|menu
    |meta|meter|nav|noscript|object|ol|optgroup|option|output|p|picture|pre|progress|q|rp|rt|ruby|s|samp|script|search
    |section|select|slot|small|source|span|strike|strong|style|sub|summary|sup|svg|table|tbody|td|template|textarea
    |tfoot|th|thead|time|title|tr|track|tt|u|ul|var|video|wbr)[ ]?/?>""",
    re.VERBOSE,
)  # bbox is no element of HTML, but stands among them in Gemma's vocabulary
NAMELESS = "\U0010ffff"  # not a character, so no piece of a vocabulary begins with it


def text_tokenizer(path: Path) -> tuple[Tokenizer, frozenset[int]]:
    """A bundle's tokenizer, made to read texts only.

    Args:
        path: Its `tokenizer.json`.

    Returns:
        The tokenizer, and the ids that it gives to no text: all control tokens but the one of unknown characters.

    Raises:
        BundleError: The file cannot be read.
    """
    from tokenizers import Tokenizer

    with bundle_file(path):
        tokenizer = Tokenizer.from_file(str(path))
    control = _spelt_out(tokenizer)
    if _found(tokenizer, control):
        state = json.loads(tokenizer.to_str())
        _rename(state, control)
        tokenizer = Tokenizer.from_str(json.dumps(state, allow_nan=False))
        _spelt_out(tokenizer)
    unknown = tokenizer.encode(NAMELESS, add_special_tokens=False).ids
    return tokenizer, frozenset(control) - set(unknown)


def template_tokenizer(path: Path) -> tuple[Tokenizer, dict[str, str]]:
    """A bundle's tokenizer, made to read texts inside a template.

    Args:
        path: Its `tokenizer.json`.

    Returns:
        The tokenizer, which knows control tokens by names that no text contains; and content of each -> its name.

    Raises:
        BundleError: The file cannot be read.
    """
    from tokenizers import Tokenizer

    with bundle_file(path):
        state = json.loads(path.read_text(encoding="utf-8"))
        control = {
            int(token["id"]): str(token["content"])
            for token in state["added_tokens"]
            if is_control(token["content"], token["special"])
        }
        _rename(state, control)
        tokenizer = Tokenizer.from_str(json.dumps(state, allow_nan=False))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, {content: NAMELESS + content for content in control.values()}


def is_control(content: str, special: bool) -> bool:
    """Whether an added token, flagged as special or not, stands for something that is no text."""
    if special:
        return True
    return _MARKER.fullmatch(content.strip(" ▁")) is not None and _TAG.fullmatch(content) is None


def _spelt_out(tokenizer: Tokenizer) -> dict[int, str]:
    """Let a tokenizer read its control tokens as text; returns their ids and contents."""
    control = {
        number: token
        for number, token in tokenizer.get_added_tokens_decoder().items()
        if is_control(token.content, token.special)
    }
    unflagged = [token for token in control.values() if not token.special]
    for token in unflagged:
        token.special = True
    tokenizer.add_special_tokens(unflagged)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return {number: token.content for number, token in control.items()}


def _found(tokenizer: Tokenizer, control: dict[int, str]) -> bool:
    """Whether a text can have control tokens all the same: Unigram and whole-word models look pieces up by name."""
    texts = [text for content in control.values() for text in (content, f" {content} ", f"a{content}a")]
    encoded: Iterable[Any] = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    return any(number in control for encoding in encoded for number in encoding.ids)


def _rename(state: dict[str, Any], control: dict[int, str]) -> None:
    """Give control tokens names, in a tokenizer's JSON, under which no text finds them; ids stay."""
    names = {content: NAMELESS + content for content in control.values()}
    model = state["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if "merges" in model:
        merges = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
        model["merges"] = [pair for pair in merges if names.keys().isdisjoint([*pair, "".join(pair)])]
    if model.get("unk_token") is not None:
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    for token in state["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
        token["special"] |= token["id"] in control
    state["post_processor"] = None  # it names control tokens, and content is read without it
