"""Render texts as a chat template does, and tokenise the whole: the ids are those of the template's own rendering.

What a template makes of one user's message is settled when a bundle is built (`ray_jobs.prepare.chat_template`): what
stands before the text, what after it, and whether the text is trimmed. No template is run here, so no text can be taken
for one. The template's control tokens go by names that no text contains, so that those spelled in a text stay text.
Tokens count as the text's where one of their characters is: a tokenizer may draw a template's space into a text's word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ray_jobs.backbone.bundle import ChatRendering
from ray_jobs.backbone.spelling import NAMELESS, template_tokenizer

TRIMS: dict[str, Callable[[str], str]] = {
    "none": lambda text: text,
    "both": str.strip,
    "left": str.lstrip,
    "right": str.rstrip,
    "newlines": lambda text: text.strip("\n"),
}
"""What templates are known to do to a text's ends."""


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation: ids [T] int32, of which `[start, stop)` are the text's.

    `ends` [stop - start] is the code point of the text that each of its tokens ends before; ascending.
    """

    ids: np.ndarray
    start: int
    stop: int
    ends: np.ndarray

    def __len__(self) -> int:
        return self.stop - self.start


class ChatTokenizer:
    """A tokenizer that reads texts inside a rendering.

    Args:
        path: The `tokenizer.json`.
        rendering: What goes around a text.

    Attributes:
        tokenizer: What it reads with.
        control: Ids of control tokens.
    """

    def __init__(self, path: Path, rendering: ChatRendering) -> None:
        self.tokenizer, names = template_tokenizer(path)
        self._trim = TRIMS[rendering.trim]
        self._lead = np.asarray(rendering.lead, dtype=np.int32)
        self._before, self._after = (_named(part, names) for part in (rendering.before, rendering.after))
        self.control = frozenset(
            number for name in names.values() if (number := self.tokenizer.token_to_id(name)) is not None
        )
        self._is_control = np.zeros(self.tokenizer.get_vocab_size() + max(self.control, default=0) + 1, dtype=bool)
        self._is_control[list(self.control)] = True

    def render(self, texts: Sequence[str]) -> list[Rendered | str]:
        """Each text's conversation, or a sentence that says why there is none.

        Raises:
            Exception: What the tokenizer raises about a text that it cannot read.
        """
        trimmed = [self._trim(text) for text in texts]
        whole = [self.whole(text) for text in texts]
        encodings = self.tokenizer.encode_batch(whole, add_special_tokens=False)
        return [
            self._rendered(encoding.ids, encoding.offsets, text, inner)
            for encoding, text, inner in zip(encodings, texts, trimmed, strict=True)
        ]

    def whole(self, text: str) -> str:
        """The conversation as a text, for `tokenizer`; control tokens of the template have the names that it knows."""
        return f"{self._before}{self._trim(text)}{self._after}"

    def _rendered(self, ids: list[int], offsets: list[tuple[int, int]], text: str, inner: str) -> Rendered | str:
        ids_T = np.asarray(ids, dtype=np.int32)
        start_T, stop_T = np.asarray(offsets, dtype=np.int64).reshape(-1, 2).T
        first, last = len(self._before), len(self._before) + len(inner)
        control_T = self._is_control[ids_T]
        own_T = np.maximum(stop_T, start_T + 1) > first
        own_T &= (start_T < last) & (len(inner) > 0)
        own_T &= ~(control_T & ((start_T < first) | (stop_T > last)))  # one that takes the blanks beside it along
        if (own_T & control_T).any():
            return "the text cannot be tokenised: it would be read as a control token"
        places = np.flatnonzero(own_T)
        start, stop = (int(places[0]), int(places[-1]) + 1) if len(places) else (len(ids_T), len(ids_T))
        ends = np.clip(stop_T[start:stop] - first, 0, len(inner)) + text.find(inner)
        ends[-1:] = len(text)
        lead = len(self._lead)
        return Rendered(np.concatenate([self._lead, ids_T]), start + lead, stop + lead, np.maximum.accumulate(ends))


def _named(part: str, names: dict[str, str]) -> str:
    """A piece of a template with its control tokens under the names that they have here."""
    if not names:
        return part
    contents = sorted(names, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, contents)), lambda found: names[found[0]], part.replace(NAMELESS, ""))
