"""Make ids of prompts, alone or inside a chat template, and of what may stand behind them.

A prompt and its continuation are tokenised as one text, as the model would meet them; a token counts as the
continuation's where one of its characters is. Control tokens that a prompt or a continuation spells out are text, as
everywhere: only the template has any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ray_jobs.backbone.bundle import TOKENIZER_NAME, Bundle, bundle_file
from ray_jobs.backbone.chat import ChatTokenizer
from ray_jobs.backbone.spelling import text_tokenizer


@dataclass(frozen=True)
class Completions:
    """A prompt with each of several continuations.

    Attributes:
        ids: Of prompt and continuation, int32 [T] each.
        start: The place of the first token of each continuation, at least 1.
    """

    ids: tuple[np.ndarray, ...]
    start: tuple[int, ...]

    @property
    def shared(self) -> int:
        """How many ids they all begin with, before the first continuation begins; at least 1."""
        first, most = self.ids[0], min(self.start)
        for other in self.ids[1:]:
            different = np.flatnonzero(first[:most] != other[:most])
            most = int(different[0]) if len(different) else most
        return max(most, 1)

    @property
    def n_tokens(self) -> int:
        """Tokens of the prompt once, and of all continuations."""
        return self.shared + sum(len(row) - self.shared for row in self.ids)


class PromptTokenizer:
    """A bundle's tokenizer.

    Args:
        bundle: A prepared bundle.
        chat: Whether prompts go into its chat template as a user's turn, with the model's turn opened behind it.
    """

    def __init__(self, bundle: Bundle, chat: bool) -> None:
        from tokenizers import Tokenizer

        path = bundle.path / TOKENIZER_NAME
        rendering = bundle.tokenizer.chat if chat else None
        self._chat = None if rendering is None else ChatTokenizer(path, rendering)
        if self._chat is not None:
            self._tokenizer, control = self._chat.tokenizer, self._chat.control
        else:
            self._tokenizer, control = text_tokenizer(path)
        lead = bundle.tokenizer.bos if rendering is None else rendering.lead
        self._lead = np.asarray(lead, dtype=np.int32)
        self._vocab_size = bundle.model.vocab_size
        self._control = np.asarray(sorted(control), dtype=np.int64)
        with bundle_file(path):
            self._plain = Tokenizer.from_file(str(path))

    def completions(self, prompt: str, ends: Sequence[str]) -> Completions | str:
        """A prompt with each of some texts behind it, or a sentence that says why there is none."""
        found = self._encoded(prompt, ends)
        if isinstance(found, str):
            return found
        for end, ids, start in zip(ends, found.ids, found.start, strict=True):
            if start == len(ids):
                return f"the choice {end.strip()!r} adds no token to the prompt"
        return found

    def prompt(self, prompt: str) -> np.ndarray | str:
        """The ids of a prompt to be continued, int32 [T], or a sentence that says why there are none."""
        found = self._encoded(prompt, [""])
        return found if isinstance(found, str) else found.ids[0]

    def decoded(self, ids: Sequence[int]) -> str:
        """The text of ids that a model wrote, without control tokens."""
        return str(self._plain.decode(list(ids), skip_special_tokens=True))

    def _encoded(self, prompt: str, ends: Sequence[str]) -> Completions | str:
        text = prompt
        if self._chat is not None:
            (rendered,) = self._chat.render([prompt])
            if isinstance(rendered, str):
                return rendered.replace("the text", "the prompt")
            text = self._chat.whole(prompt)
        try:
            encodings = self._tokenizer.encode_batch([text + end for end in ends], add_special_tokens=False)
        except Exception as error:  # noqa: BLE001 (what a tokenizer raises about a text that it cannot read)
            return f"the prompt cannot be tokenised: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ids, starts = [], []
        for encoding in encodings:
            ids_T = np.asarray(encoding.ids, dtype=np.int32)
            stop_T = np.asarray([stop for _, stop in encoding.offsets], dtype=np.int64)
            behind = np.flatnonzero(stop_T > len(text))
            start = int(behind[0]) if len(behind) else len(ids_T)
            if len(ids_T) and int(ids_T.max()) >= self._vocab_size:
                return (
                    f"the prompt has token {int(ids_T.max())}, but the model's embedding ends at {self._vocab_size - 1}"
                )
            if np.isin(ids_T if self._chat is None else ids_T[start:], self._control).any():
                return "the prompt cannot be tokenised: it would be read as a control token"
            ids.append(np.concatenate([self._lead, ids_T]))
            starts.append(start + len(self._lead))
        if min(starts) < 1:
            return "the prompt has no token, and nothing stands before it"
        return Completions(tuple(ids), tuple(starts))
