"""Render texts as a chat template does, and tokenise the whole: the ids are those of the template's own rendering.

What a template makes of one user's message is settled when a bundle is built (`ray_jobs.prepare.tokenizer`): what
stands before the text, what after it, and whether the text is trimmed. For such texts no template is run here. For
conversations of several turns it is, since what it puts around a turn depends on the turns before: in transformers'
sandbox, once on the conversation and once for each order of roles on marks in place of the turns, which tells where
every turn stands. A conversation whose turns are not found again in its rendering is refused.

The template's control tokens go by names that no text contains, so that those spelled in a text stay text. Tokens count
as the text's where one of their characters is: a tokenizer may draw a template's space into a text's word.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.backbone.bundle import ChatRendering, TurnTemplate
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
        own_T = _overlaps(start_T, stop_T, first, last, control_T)
        if (own_T & control_T).any():
            return "the text cannot be tokenised: it would be read as a control token"
        places = np.flatnonzero(own_T)
        start, stop = (int(places[0]), int(places[-1]) + 1) if len(places) else (len(ids_T), len(ids_T))
        ends = np.clip(stop_T[start:stop] - first, 0, len(inner)) + text.find(inner)
        ends[-1:] = len(text)
        lead = len(self._lead)
        return Rendered(np.concatenate([self._lead, ids_T]), start + lead, stop + lead, np.maximum.accumulate(ends))


@dataclass(frozen=True)
class Turns:
    """A rendered conversation of several turns.

    Attributes:
        ids: int32 [T].
        pooled: Which tokens are of turns that count, bool [T].
        own: Which are of any turn, bool [T].
        start: First code point of each token of a turn in the conversation's JSON, int64 [own].
        stop: One past its last.
    """

    ids: np.ndarray
    pooled: np.ndarray
    own: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    def __len__(self) -> int:
        return int(self.pooled.sum())


@dataclass(frozen=True)
class _Piece:
    """Where a turn's text, or what the template left of it, stands in a rendering, and from where in the turn it is."""

    turn: int
    start: int
    stop: int
    offset: int


class ConversationTokenizer:
    """A tokenizer that reads conversations as their template renders them.

    Args:
        path: The `tokenizer.json`.
        rendering: Of conversations.

    Attributes:
        tokenizer: What it reads with.
        control: Ids of control tokens.
    """

    def __init__(self, path: Path, rendering: ChatRendering) -> None:
        assert rendering.turns is not None
        self.tokenizer, self._names = template_tokenizer(path)
        self._template, self._date = rendering.turns, rendering.date
        self._lead = np.asarray(rendering.lead, dtype=np.int32)
        self.control = frozenset(
            number for name in self._names.values() if (number := self.tokenizer.token_to_id(name)) is not None
        )
        self._is_control = np.zeros(self.tokenizer.get_vocab_size() + max(self.control, default=0) + 1, dtype=bool)
        self._is_control[list(self.control)] = True
        self._between: dict[tuple[str, ...], tuple[list[str], list[int]] | str] = {}

    def render(self, texts: Sequence[str]) -> list[Turns | str]:
        """Each conversation, or a sentence that says why there is none.

        Raises:
            Exception: What the tokenizer raises about a text that it cannot read.
        """
        found: list[Turns | str] = []
        with on_day(self._date):
            placed = [self._placed(text) for text in texts]
        whole = [one[0] for one in placed if not isinstance(one, str)]
        encodings = iter(self.tokenizer.encode_batch(whole, add_special_tokens=False))
        for text, one in zip(texts, placed, strict=True):
            if isinstance(one, str):
                found.append(one)
            else:
                encoding = next(encodings)
                found.append(self._turns(encoding.ids, encoding.offsets, one[1], one[2], text))
        return found

    def _placed(self, text: str) -> tuple[str, list[_Piece], list[dict[str, str]]] | str:
        """The rendering with control tokens under the names that they have here, and where in it turns stand."""
        messages = conversation_of(text)
        if self._template.system_prompt is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self._template.system_prompt}, *messages]
        roles = tuple(message["role"] for message in messages)
        try:
            whole = rendered(self._template, messages)
            if roles not in self._between:
                self._between[roles] = self._marked(roles)
        except Exception as error:  # noqa: BLE001 (templates raise anything)
            return f"the chat template refuses this conversation: {' '.join(str(error).split())[:200]}"
        between = self._between[roles]
        if isinstance(between, str):
            return between
        literals, order = between
        contents = [messages[turn]["content"] for turn in order]
        spans = _spans(whole, literals, contents)
        if spans is None:
            return "the chat template changes the text of a turn by more than trimming it, so its tokens cannot be told"
        pieces, out = list[_Piece](), ""
        for number, literal in enumerate(literals):
            out += _named(literal, self._names)
            if number < len(order):
                start, stop = spans[number]
                kept = whole[start:stop]
                pieces.append(_Piece(order[number], len(out), len(out) + len(kept), contents[number].find(kept)))
                out += kept
        return out, pieces, messages

    def _marked(self, roles: tuple[str, ...]) -> tuple[list[str], list[int]] | str:
        """What stands around the turns of a conversation of such roles, and in which order they stand there."""
        marks = [f"q{number}TURNq" for number in range(len(roles))]
        whole = rendered(
            self._template, [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
        )
        parts = re.split(r"q(\d+)TURNq", whole)
        order = [int(number) for number in parts[1::2]]
        if len(set(order)) < len(order):
            return "the chat template repeats a turn of this conversation"
        return parts[::2], order

    def _turns(
        self,
        ids: list[int],
        offsets: list[tuple[int, int]],
        pieces: Sequence[_Piece],
        messages: Sequence[Mapping[str, str]],
        text: str,
    ) -> Turns | str:
        ids_T = np.asarray(ids, dtype=np.int32)
        start_T, stop_T = np.asarray(offsets, dtype=np.int64).reshape(-1, 2).T
        control_T = self._is_control[ids_T]
        own_T, pooled_T = np.zeros(len(ids_T), dtype=bool), np.zeros(len(ids_T), dtype=bool)
        shown = _places_in_json(text, messages)
        first_T, last_T = np.zeros(len(ids_T), dtype=np.int64), np.zeros(len(ids_T), dtype=np.int64)
        for piece in pieces:
            of_T = _overlaps(start_T, stop_T, piece.start, piece.stop, control_T)
            if (of_T & control_T).any():
                return "the text cannot be tokenised: it would be read as a control token"
            where = shown[piece.turn]
            if where is None:  # the job's own system prompt
                continue
            new_T = of_T & ~own_T
            for whole_T, edge_T in ((first_T, start_T), (last_T, stop_T)):
                inside = np.clip(edge_T[new_T] - piece.start, 0, piece.stop - piece.start) + piece.offset
                whole_T[new_T] = where[inside]
            own_T |= of_T
            if messages[piece.turn]["role"] in self._template.roles:
                pooled_T |= of_T
        lead = np.zeros(len(self._lead), dtype=bool)
        return Turns(
            np.concatenate([self._lead, ids_T]),
            np.concatenate([lead, pooled_T]),
            np.concatenate([lead, own_T]),
            first_T[own_T],
            np.maximum(first_T, last_T)[own_T],
        )


def conversation_of(text: str) -> list[dict[str, str]]:
    """The turns of a document: of JSON as `featurestore.tables.values` writes it; any other text is a user's one."""
    try:
        found = json.loads(text) if text.startswith("[") else None
    except (ValueError, RecursionError):
        found = None
    sound = isinstance(found, list) and all(
        isinstance(turn, dict) and list(turn) == ["role", "content"] and all(type(x) is str for x in turn.values())
        for turn in found
    )
    return found if found and sound and _spelt(found) == text else [{"role": "user", "content": text}]


def rendered(template: TurnTemplate, messages: Sequence[Mapping[str, str]]) -> str:
    """A conversation as a template renders it, by transformers, in its sandbox.

    Raises:
        Exception: What templates and jinja raise.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    (whole,), _ = render_jinja_template(
        conversations=[[dict(message) for message in messages]],
        chat_template=template.template,
        add_generation_prompt=template.generation_prompt,
        **template.variables,
    )
    return str(whole)


@contextmanager
def on_day(date: str | None, asked: Callable[[], None] | None = None) -> Iterator[None]:
    """While it lasts, `strftime_now` of chat templates is asked at midnight of a day, YYYY-MM-DD; None leaves it today.

    Args:
        date: The day.
        asked: Called whenever a template asks.
    """
    from transformers.utils import chat_template_utils

    if date is None:
        yield
        return
    moment = datetime.datetime.fromisoformat(date)

    class Fixed(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            if asked is not None:
                asked()
            return moment.replace(tzinfo=tz)

    original = chat_template_utils.datetime
    chat_template_utils.datetime = Fixed
    try:
        yield
    finally:
        chat_template_utils.datetime = original


def _spans(whole: str, literals: Sequence[str], contents: Sequence[str]) -> list[tuple[int, int]] | None:
    """Where texts stand in a rendering, between what a template puts around them; None where they do not.

    A text is there as it is, trimmed, or else a piece of it (some templates cut what a model thought).
    """
    if not whole.startswith(literals[0]):
        return None
    starts, ways = [len(literals[0])], list[Iterator[int]]()
    while len(starts) <= len(contents):
        number = len(starts) - 1
        if len(ways) == number:
            last = number + 1 == len(contents)
            ways.append(_stops(whole, starts[-1], contents[number], literals[number + 1], last))
        stop = next(ways[-1], None)
        if stop is not None:
            starts.append(stop + len(literals[number + 1]))
            continue
        ways.pop()
        starts.pop()
        if not starts:
            return None
    if starts[-1] != len(whole):  # of a template that puts nothing behind the last text
        return None
    return [(at, after - len(literals[n + 1])) for n, (at, after) in enumerate(pairwise(starts))]


def _stops(whole: str, at: int, content: str, following: str, last: bool) -> Iterator[int]:
    """Where a text that begins `at` a place of a rendering may end there, the likeliest first."""
    for kept in dict.fromkeys(trim(content) for trim in TRIMS.values()):
        stop = at + len(kept)
        if whole.startswith(kept + following, at) and (not last or stop + len(following) == len(whole)):
            yield stop
    stop = len(whole) - len(following) if last else whole.find(following, at)
    while following and stop >= at and whole.startswith(following, stop):
        if whole[at:stop] in content:
            yield stop
        stop = -1 if last else whole.find(following, stop + 1)


def _places_in_json(text: str, messages: Sequence[Mapping[str, str]]) -> list[np.ndarray | None]:
    """For each turn, where each of its characters, and its end, stands in the JSON of the conversation.

    None for a turn that is not of the document; of a document that is a text, where it stands there.
    """
    given = conversation_of(text)
    found: list[np.ndarray | None] = [None] * (len(messages) - len(given))
    if given[0]["content"] == text:
        return [*found, np.arange(len(text) + 1)]
    at = 0
    for turn in given:
        at += len(f'[{{"role": {_spelt(turn["role"])}, "content": "')  # or a comma and a blank behind the turn before
        letters = np.frombuffer(turn["content"].encode("utf-32-le"), dtype=np.uint32)
        widths = np.where((letters == ord('"')) | (letters == ord("\\")), 2, np.where(letters < ord(" "), 6, 1))
        widths[np.isin(letters, [ord(letter) for letter in "\n\r\t\b\f"])] = 2
        found.append(at + np.concatenate([[0], np.cumsum(widths)]).astype(np.int64))
        at = int(found[-1][-1]) + len('"},')  # type: ignore[index]
    return found


def _spelt(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _overlaps(start_T: np.ndarray, stop_T: np.ndarray, first: int, last: int, control_T: np.ndarray) -> np.ndarray:
    """Which tokens have a character of `[first, last)`, but for control tokens that take blanks beside them along."""
    own_T = (np.maximum(stop_T, start_T + 1) > first) & (start_T < last) & (last > first)
    return own_T & ~(control_T & ((start_T < first) | (stop_T > last)))


def _named(part: str, names: dict[str, str]) -> str:
    """A piece of a template with its control tokens under the names that they have here."""
    if not names:
        return part
    contents = sorted(names, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, contents)), lambda found: names[found[0]], part.replace(NAMELESS, ""))
