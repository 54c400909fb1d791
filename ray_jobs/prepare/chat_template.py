"""Settle what a tokenizer's chat template makes of one user's message, so that nothing has to run the template later.

Conversations of several turns are another matter: `turns_of` hands the template itself over (`ray_jobs.backbone.chat`).

The template is run on a marker, for what goes around a text, and on texts that begin and end with all kinds of
characters, for what it does to them. What is found must give the ids of `apply_chat_template`; a template that does
more to a text than trimming it is not used. One that asks for the date is told one, which the bundle records.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ray_jobs.backbone.bundle import ChatRendering, TurnTemplate
from ray_jobs.backbone.chat import TRIMS, ChatTokenizer, ConversationTokenizer, on_day

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
