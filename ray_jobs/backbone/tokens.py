"""Decide which tokens of a document are fed to the model, and which of them count.

A document's content is its text tokenised on its own, control tokens spelled out (`ray_jobs.backbone.spelling`): a
literal `<bos>` in a text is content, so no document can inject one, and every token of the text counts. Around it go
the beginning-of-sequence token or the chat template, as context; where a template and a text meet in one token, both
are tokenised together (`ray_jobs.backbone.chat`). Long documents are cut, or read through windows that
overlap by `stride` tokens of context; each token is pooled exactly once, in the first window that reaches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from featurestore.errors import JobSpecError
from ray_jobs.backbone.bundle import TOKENIZER_NAME, Bundle
from ray_jobs.backbone.chat import ChatTokenizer, ConversationTokenizer, Rendered, Turns
from ray_jobs.backbone.spelling import NAMELESS, text_tokenizer

TEXTS_PER_CALL = 256
"""Texts tokenised at a time: enough to occupy the tokenizer's threads, few enough that its offsets stay small."""


Content = np.ndarray | Rendered | Turns
"""Ids of a text on its own, int32 [n], a text in its rendering, or a conversation; `len` is its number of tokens."""


@dataclass(frozen=True)
class TokenPolicy:
    """How content becomes windows.

    Attributes:
        head: Ids fed before the content of every window: BOS, or the chat template up to the text.
        tail: Ids fed after the content of the last window. Empty unless they count: a causal model cannot see them.
        max_tokens: Positions fed to the model in one window, head and tail included.
        stride: Content tokens that a window repeats from the one before as context; None cuts the document instead.
        count_all: Whether head (once) and tail are pooled too.
        n_shared: Ids of the head that all windows of all documents begin with; all of them where not given.
    """

    head: np.ndarray
    tail: np.ndarray
    max_tokens: int
    stride: int | None
    count_all: bool
    n_shared: int | None = None

    @property
    def shared(self) -> np.ndarray:
        """Ids that all windows begin with."""
        return self.head[: self.n_shared]

    def of(self, content: Content) -> TokenPolicy:
        """The policy of one document: in a rendering, head and tail are its own."""
        if not isinstance(content, Rendered):
            return self
        tail = content.ids[content.stop :] if self.count_all else self.tail[:0]
        return replace(self, head=content.ids[: content.start], tail=tail)

    @property
    def room(self) -> int:
        """Content tokens that fit in one window."""
        return self.max_tokens - len(self.head) - len(self.tail)


@dataclass(frozen=True)
class Window:
    """What is fed at once: `ids[T]` int32, positions `[start, stop)` of which are pooled; the document's `place`-th.

    Of an image, `pixels` is what its model's tower reads, float32 [C, H, W], at `patches` positions of its own. Of a
    conversation only some positions are pooled: `some`, ascending.
    """

    document: int
    ids: np.ndarray
    start: int
    stop: int
    place: int = 0
    pixels: np.ndarray | None = None
    patches: int = 0
    some: np.ndarray | None = None

    @property
    def n_pooled(self) -> int:
        """Number of tokens that this window contributes."""
        return self.stop - self.start if self.some is None else len(self.some)

    @property
    def pooled(self) -> np.ndarray:
        """Their positions, ascending."""
        return np.arange(self.start, self.stop) if self.some is None else self.some

    @property
    def cost(self) -> int:
        """Tokens of a batch's budget that it takes: those fed, or the patches of its image where they are more."""
        return max(len(self.ids), self.patches)


class TokenChoices(Protocol):
    """What a job says of tokens: its `model`, and the engine's settings, say it in the same words."""

    @property
    def tokens(self) -> Literal["content", "all", "image", "text"]: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def long_documents(self) -> Literal["truncate", "windows"]: ...
    @property
    def stride(self) -> int: ...
    @property
    def chat(self) -> bool: ...


def token_policy(bundle: Bundle, choices: TokenChoices) -> TokenPolicy:
    """The policy of a job for a bundle's tokenizer.

    Raises:
        JobSpecError: No chat template, or no room for content within `max_tokens` (or beyond `stride`).
    """
    if bundle.vision is not None:
        raise JobSpecError(
            f"corpus.image: {bundle.model.name} was prepared for images, and these are texts; name the column of images"
        )
    info = bundle.tokenizer
    head: tuple[int, ...] = info.bos
    tail: tuple[int, ...] = ()
    if choices.chat:
        if info.chat_prefix is None or info.chat_suffix is None:
            raise JobSpecError(
                f"model.chat: the tokenizer of {bundle.model.name} has no chat template that leaves a text as it is; "
                "set chat: false"
            )
        head, tail = info.chat_prefix, info.chat_suffix
    policy = TokenPolicy(
        head=np.asarray(head, dtype=np.int32),
        tail=np.asarray(tail if choices.tokens == "all" else (), dtype=np.int32),
        max_tokens=choices.max_tokens,
        stride=choices.stride if choices.long_documents == "windows" else None,
        count_all=choices.tokens == "all",
        n_shared=info.chat.n_shared if choices.chat and info.chat is not None else None,
    )
    if policy.room <= (policy.stride or 0):
        raise JobSpecError(
            f"model.max_tokens: {choices.max_tokens} leaves no room for new text beside "
            f"{len(policy.head) + len(policy.tail)} tokens of context before and after it and a stride of "
            f"{policy.stride or 0}; set it higher"
        )
    return policy


def windows_of(document: int, content: Content, policy: TokenPolicy) -> tuple[list[Window], bool]:
    """Cut one document into windows.

    Args:
        document: Its number, carried into the windows.
        content: Its text's tokens. No content gives no window, whatever the policy.
        policy: The job's token policy.

    Returns:
        Its windows in order, and whether some of its content is in none of them.
    """
    if not len(content):
        return [], False
    if isinstance(content, Turns):
        return _windows_of_turns(document, content, policy)
    policy = policy.of(content)
    ids = content.ids[content.start : content.stop] if isinstance(content, Rendered) else content
    room = max(policy.room, 1)  # a head of another length than the usual one may have left less
    overlap = min(policy.stride or 0, room - 1)
    if policy.stride is None:
        spans = [(0, 0, min(len(content), room))]
    else:  # (first fed, first new, end)
        spans = [(0, 0, min(len(content), room))]
        while spans[-1][2] < len(content):
            new = spans[-1][2]
            spans.append((new - overlap, new, min(len(content), new - overlap + room)))
    windows = []
    for number, (first, new, end) in enumerate(spans):
        tail = policy.tail if number == len(spans) - 1 else policy.tail[:0]
        fed = np.concatenate([policy.head, ids[first:end], tail])
        start = 0 if policy.count_all and number == 0 else len(policy.head) + new - first
        windows.append(Window(document, fed, start, len(fed), number))
    return windows, spans[-1][2] < len(content)


def _windows_of_turns(document: int, content: Turns, policy: TokenPolicy) -> tuple[list[Window], bool]:
    """The same of a conversation: it is fed as a whole, from its beginning, and tokens of some turns are pooled."""
    head = policy.shared
    ids, pooled_T = content.ids[len(head) :], content.pooled[len(head) :]
    wanted = np.arange(len(ids)) if policy.count_all else np.flatnonzero(pooled_T)
    end = int(wanted[-1]) + 1  # a causal model does not see what follows
    room = policy.max_tokens - len(head)
    spans = [(0, 0, min(end, room))]  # (first fed, first new, end)
    while policy.stride is not None and spans[-1][2] < end:
        new = spans[-1][2]
        first = new - min(policy.stride, room - 1)
        spans.append((first, new, min(end, first + room)))
    windows = list[Window]()
    for first, new, stop in spans:
        some = wanted[np.searchsorted(wanted, new) : np.searchsorted(wanted, stop)] - first + len(head)
        if policy.count_all and first == new == 0:
            some = np.concatenate([np.arange(len(head)), some])
        if len(some):
            fed = np.concatenate([head, ids[first:stop]])
            windows.append(Window(document, fed, int(some[0]), int(some[-1]) + 1, len(windows), some=some))
    return windows, spans[-1][2] < end


class ContentTokenizer:
    """The bundle's tokenizer, for content only.

    Args:
        bundle: A prepared bundle.
        chat: Whether texts go into its chat template.
    """

    def __init__(self, bundle: Bundle, chat: bool = False) -> None:
        rendering = bundle.tokenizer.chat if chat else None
        self._chat: ChatTokenizer | ConversationTokenizer | None = None
        if rendering is not None:
            of = ChatTokenizer if rendering.turns is None else ConversationTokenizer
            self._chat = of(bundle.path / TOKENIZER_NAME, rendering)
        self._shared = (bundle.tokenizer.chat_prefix or ())[: rendering.n_shared if rendering else 0]
        if self._chat is not None:
            self._tokenizer, control = self._chat.tokenizer, self._chat.control
        else:
            self._tokenizer, control = text_tokenizer(bundle.path / TOKENIZER_NAME)
        self._vocab_size = bundle.model.vocab_size
        self._control = np.zeros(max(self._vocab_size, 1 + max(control, default=0)), dtype=bool)
        self._control[list(control)] = True

    def encode(self, texts: Sequence[str]) -> list[Content | str]:
        """The tokens of each text, or a sentence that says why there are none."""
        encoded: list[Content | str] = []
        for start in range(0, len(texts), TEXTS_PER_CALL):
            encoded.extend(self._encode_some(texts[start : start + TEXTS_PER_CALL]))
        return encoded

    def located(self, text: str) -> tuple[Content, np.ndarray] | str:
        """The n tokens of one text, and the code point that each token ends before (int64 [n], ascending).

        A token begins where the one before it ends, and the last one ends with the text. So characters that the
        tokenizer drops belong to what follows, and of tokens that share a character (its bytes) the first one has it.
        Of a conversation, whose `start` says where tokens begin, they are those of all turns.
        """
        ids = self.encode([text])[0]
        if isinstance(ids, str):
            return ids
        if isinstance(ids, Rendered):
            return ids, ids.ends
        if isinstance(ids, Turns):
            return ids, ids.stop
        encoding = self._tokenizer.encode(text, add_special_tokens=False)  # the fast way knows no offsets
        stop = np.array([stop for _, stop in encoding.offsets], dtype=np.int64)
        stop[-1:] = len(text)
        return ids, np.maximum.accumulate(stop)

    def names(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """What tokens around a text are called, `<bos>` for instance."""
        return [self._tokenizer.decode([int(i)], skip_special_tokens=False).replace(NAMELESS, "") for i in ids]

    def _encode_some(self, texts: Sequence[str]) -> list[Content | str]:
        try:
            if self._chat is not None:
                return [self._checked_rendering(one) for one in self._chat.render(texts)]
            found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        except Exception as error:  # noqa: BLE001 (one bad text, e.g. a lone surrogate, fails the call: find out which)
            if len(texts) == 1:
                return [f"the text cannot be tokenised: {type(error).__name__}: {' '.join(str(error).split())[:200]}"]
            return [result for text in texts for result in self._encode_some([text])]
        return [self._checked(np.asarray(encoding.ids, dtype=np.int32)) for encoding in found]

    def _checked_rendering(self, rendered: Rendered | Turns | str) -> Rendered | Turns | str:
        if isinstance(rendered, str):
            return rendered
        if tuple(rendered.ids[: len(self._shared)].tolist()) != self._shared:
            return "the text cannot be tokenised: it would change the chat template before it"
        if len(rendered.ids) and int(rendered.ids.max()) >= self._vocab_size:
            return str(self._checked(rendered.ids))
        return rendered

    def _checked(self, ids: np.ndarray) -> np.ndarray | str:
        if len(ids) and int(ids.max()) >= self._vocab_size:
            token = int(ids.max())
            return (
                f"the text has token {token} ({self._tokenizer.id_to_token(token)!r}), "
                f"but the model's embedding ends at {self._vocab_size - 1}"
            )
        if self._control[ids].any():  # only a text that uses a name of `spelling`'s own can have one
            return "the text cannot be tokenised: it would be read as a control token"
        return ids
