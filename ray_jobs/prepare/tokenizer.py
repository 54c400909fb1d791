"""Keep a model's tokenizer in a bundle, and settle what it and its chat template put around a text.

What the template makes of one user's message is found out here, so that nothing has to run the template later.
Conversations of several turns are another matter: `turns_of` hands the template itself over (`ray_jobs.backbone.chat`).

The template is run on a marker, for what goes around a text, and on texts that begin and end with all kinds of
characters, for what it does to them. What is found must give the ids of `apply_chat_template`; a template that does
more to a text than trimming it is not used. One that asks for the date is told one, which the bundle records.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.base.library_errors import brief
from featurestore.errors import BundleError
from ray_jobs.backbone.bundle import TOKENIZER_NAME, ChatRendering, TokenizerInfo, TurnTemplate
from ray_jobs.backbone.chat import TRIMS, ChatTokenizer, ConversationTokenizer, on_day
from ray_jobs.backbone.spelling import text_tokenizer
from ray_jobs.prepare.checkpoint import gguf_argument

if TYPE_CHECKING:
    from ray_jobs.prepare.checkpoint import Checkpoint
    from ray_jobs.spec import ModelSpec

MARKER = "the user's text"
_ENDS = [chr(code) for code in range(33, 127)] + ["é", "漢", "🙂", "\u0301", "\u200d", "0", "don't"]
_BLANKS = [" ", "\n", "\n\n", "\t", " \n", "  ", "\u3000"]
PROBES = (
    *(f"{end}a {end} b{end}" for end in _ENDS),
    *(f"{blank}some words{blank}and more{blank}" for blank in _BLANKS),
    *(f"{blank}x" for blank in _BLANKS),
    *(f"x{blank}" for blank in _BLANKS),
    "{{ 1 + 1 }}{% if x %}",
    "<b>bold</b>\r\n# title\n- item",
    "word " * 50,
)
"""Texts that a template, or a tokenizer at the border of a text, may treat unlike others."""

_MARKED = ("<think>so</think> then", "[INST] a [/INST] b", "<|im_end|>", "<tool_response>x</tool_response>", "</s>")
"""Texts that a template may take apart; what is control in them is text here, so only their letters are compared."""


class Template:
    """A tokenizer's chat template on a given day.

    Args:
        tokenizer: Of transformers.
        generation_prompt: Whether the model's turn is opened behind the text.
        date: The day, as YYYY-MM-DD; today where not given.
        system_prompt: What is said before the user's text; None for nothing.

    Attributes:
        date: The day that it is told.
        dated: Whether it has asked for the date.
    """

    def __init__(
        self,
        tokenizer: Any,
        generation_prompt: bool = False,
        date: str | None = None,
        system_prompt: str | None = None,
    ) -> None:
        self._tokenizer, self._prompt, self._system = tokenizer, generation_prompt, system_prompt
        self.date = date or datetime.datetime.now().date().isoformat()
        self.dated = False

    def render(self, text: str) -> str:
        """The template's rendering of one user's message."""
        return str(self._apply(text, tokenize=False))

    def ids(self, text: str) -> list[int]:
        """The same as ids."""
        return [int(i) for i in self._apply(text, tokenize=True, return_dict=False)]

    def of_turns(self, roles: tuple[str, ...]) -> TurnTemplate:
        """The template as it renders conversations, of which turns of these roles count.

        Raises:
            Exception: What transformers raises where there is none.
        """
        return TurnTemplate(
            template=self._tokenizer.get_chat_template(),
            variables=dict(self._tokenizer.special_tokens_map),
            generation_prompt=self._prompt,
            system_prompt=self._system,
            roles=roles,
        )

    def _apply(self, text: str, **options: Any) -> Any:
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        with on_day(self.date, self._was_asked):
            return self._tokenizer.apply_chat_template(
                [*system, {"role": "user", "content": text}], add_generation_prompt=self._prompt, **options
            )

    def _was_asked(self) -> None:
        self.dated = True


def turns_of(
    template: Template, tokenizer_json: Path, bos: tuple[int, ...], roles: tuple[str, ...]
) -> tuple[ChatRendering, tuple[int, ...], tuple[int, ...]] | None:
    """How conversations are rendered, and the ids before and after the text of one that is a user's single turn.

    Args:
        template: Of the bundle's tokenizer.
        tokenizer_json: The same tokenizer as a bundle holds it.
        bos: Ids that every conversation is to begin with; where the template does not put them there, they go before.
        roles: Whose turns count.

    Returns:
        None where there is no template, or one that changes a turn by more than trimming it.
    """
    try:
        ids, turns = template.ids(MARKER), template.of_turns(roles)
    except Exception:  # noqa: BLE001 (templates raise anything)
        return None
    lead = () if tuple(ids[: len(bos)]) == bos else bos
    found = ChatRendering("", "", "none", lead, len(bos), template.date if template.dated else None, turns)
    (one,) = ConversationTokenizer(tokenizer_json, found).render([MARKER])
    if isinstance(one, str) or one.ids.tolist() != [*lead, *ids] or not one.own.any():
        return None
    places = np.flatnonzero(one.own)
    return found, tuple(one.ids[: places[0]].tolist()), tuple(one.ids[places[-1] + 1 :].tolist())


def rendering_of(
    template: Template, tokenizer_json: Path, bos: tuple[int, ...]
) -> tuple[ChatRendering, tuple[int, ...], tuple[int, ...]] | None:
    """What goes around a text, and the most ids that it comes to before a text, and after one.

    Args:
        template: Of the bundle's tokenizer.
        tokenizer_json: The same tokenizer as a bundle holds it.
        bos: Ids that every text is to begin with; where the template does not put them there, they go before it.

    Returns:
        None where there is no template, or one that does more to a text than to trim it.
    """
    try:
        marked = template.render(MARKER)
        rendered = {text: template.render(text) for text in (*PROBES, *_MARKED)}
        ids = {text: template.ids(text) for text in (MARKER, *PROBES)}
    except Exception:  # noqa: BLE001 (templates raise anything)
        return None
    if marked.count(MARKER) != 1:
        return None
    before, after = marked.split(MARKER)
    trims = [
        name
        for name, trim in TRIMS.items()
        if all(whole == f"{before}{trim(text)}{after}" for text, whole in rendered.items())
    ]
    if not trims:
        return None
    lead = () if tuple(ids[MARKER][: len(bos)]) == bos else bos
    date = template.date if template.dated else None
    found = ChatRendering(before, after, trims[0], lead, len(lead), date)
    chat = ChatTokenizer(tokenizer_json, found)
    here = []
    for text, one in zip((MARKER, *PROBES), chat.render([MARKER, *PROBES]), strict=True):
        if isinstance(one, str) or one.ids.tolist() != [*lead, *ids[text]]:
            return None
        here.append(one)
    head = max((one.ids[: one.start].tolist() for one in here), key=len)
    tail = max((one.ids[one.stop :].tolist() for one in here), key=len)
    control = [place for place, number in enumerate(head) if number in chat.control]
    shared = max([len(lead), *(place + 1 for place in control)])
    return ChatRendering(before, after, trims[0], lead, shared, date), tuple(head), tuple(tail)


def save_tokenizer(
    model: Checkpoint,
    directory: Path,
    vocab_size: int,
    prepend_bos: bool | None,
    choices: ModelSpec | None = None,
    conversations: bool = False,
    always_render: bool = False,
) -> TokenizerInfo:
    """Write `tokenizer.json`, and find out what goes before and after a text.

    Args:
        model: The checkpoint.
        directory: The bundle in the making.
        vocab_size: Rows of the model's embedding; a tokenizer may have been given tokens that it has none for.
        prepend_bos: Whether the SAEs were trained behind a BOS token: it is then fed even if the tokenizer adds none
            (where it has none, the end-of-sequence token takes its place, as in TransformerLens); if not, none is fed.
            None leaves it to the tokenizer.
        choices: What the job says of its chat template.
        conversations: Whether its documents are conversations of several turns.
        always_render: Whether a chat is always given as a rendering, for something follows it that belongs to no text.

    Raises:
        BundleError: The tokenizer cannot be read, has no `tokenizers` form, a chat template without a system turn where
            one is asked for, or puts tokens around every text that the model has no embedding of.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model.directory, trust_remote_code=False, **gguf_argument(model))
        backend = tokenizer.backend_tokenizer
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        raise BundleError(f"the tokenizer of {model.source} cannot be read ({brief(error)})") from None
    backend.no_truncation()
    backend.no_padding()
    backend.save(str(directory / TOKENIZER_NAME))
    whole, bare = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    starts = [start for start in range(len(whole)) if whole[start : start + len(bare)] == bare]
    bos = tuple(whole[: starts[0]]) if starts else ()
    if prepend_bos is False:
        bos = ()
    elif prepend_bos and not bos:
        bos = tuple(i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None)[:1]
    prefix, suffix, chat = _chat(tokenizer, directory / TOKENIZER_NAME, bos, choices, conversations, always_render)
    used = bos if choices is None or not choices.chat else (*bos, *(prefix or ()), *(suffix or ()))
    if beyond := [i for i in used if i >= vocab_size]:
        raise BundleError(
            f"the tokenizer of {model.source} puts {tokenizer.convert_ids_to_tokens(beyond[0])!r} (token {beyond[0]}) "
            f"before or behind every text, but the model's embedding ends at {vocab_size - 1}; give the model that "
            "belongs to this tokenizer"
        )
    given = (i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None)
    pad = next((i for i in given if i < vocab_size), 0)  # it is looked up, whatever comes of it
    return TokenizerInfo(bos=bos, pad=pad, chat_prefix=prefix, chat_suffix=suffix, chat=chat)


_Chat = tuple[tuple[int, ...] | None, tuple[int, ...] | None, ChatRendering | None]


def _chat(
    tokenizer: Any,
    tokenizer_json: Path,
    bos: tuple[int, ...],
    choices: ModelSpec | None,
    conversations: bool,
    always_render: bool,
) -> _Chat:
    """What a bundle says of the chat template: ids before and after a text, and how texts are rendered.

    A job without chat gets the ids only, and none of a template that says another thing every day.
    """
    wanted = choices is not None and choices.chat
    said = () if choices is None else (choices.generation_prompt, choices.date, choices.system_prompt)
    template = Template(tokenizer, *said)
    if choices is not None and wanted and conversations:
        turns = turns_of(template, tokenizer_json, bos, choices.turns)
        return (None, None, None) if turns is None else (turns[1], turns[2], turns[0])
    apart = _around(template, tokenizer, bos)
    if not wanted:
        return (None, None, None) if apart is None or template.dated else (*apart, None)
    assert choices is not None
    found = rendering_of(template, tokenizer_json, bos)
    prompt = choices.system_prompt
    if found is None or (prompt is not None and prompt.strip() not in found[0].before):
        plain = choices.model_copy(update={"system_prompt": None})
        if prompt is not None and _chat(tokenizer, tokenizer_json, bos, plain, conversations, always_render)[0]:
            raise BundleError(
                "model.system_prompt: the chat template has no place for a system turn; put it into the prompt, and "
                "remove it"
            )
        return None, None, None
    rendering, head, tail = found
    exact = not always_render and rendering.date is None and rendering.trim == "none" and apart is not None
    if exact and apart is not None and _is_exact(tokenizer_json, rendering, apart):
        return (*apart, None)
    return head, tail, rendering


def _around(template: Template, tokenizer: Any, bos: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Ids of what the chat template puts before and after a text, each tokenised by itself, behind BOS once."""
    try:
        rendered = template.render(MARKER)
    except Exception:  # noqa: BLE001 (templates raise anything)
        return None
    if rendered.count(MARKER) != 1:
        return None
    prefix, suffix = (tuple(tokenizer(part, add_special_tokens=False)["input_ids"]) for part in rendered.split(MARKER))
    return (prefix if prefix[: len(bos)] == bos else bos + prefix), suffix


def _is_exact(tokenizer_json: Path, rendering: ChatRendering, apart: tuple[tuple[int, ...], tuple[int, ...]]) -> bool:
    """Whether the rendering of any text is the ids before it, its own and the ids after it."""
    alone, _ = text_tokenizer(tokenizer_json)
    for text, one in zip(PROBES, ChatTokenizer(tokenizer_json, rendering).render(PROBES), strict=True):
        content = alone.encode(text, add_special_tokens=False).ids
        if isinstance(one, str) or one.ids.tolist() != [*apart[0], *content, *apart[1]] or len(one) != len(content):
            return False
    return True
