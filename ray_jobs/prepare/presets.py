"""Know the SAEs of Gemma Scope and Gemma Scope 2 by short names, and make a job of them: `gemma-2-9b-it/l20_16k`.

A preset is a model and, behind the slash, layer and width of one of its residual SAEs. Of Gemma Scope it is the
canonical SAE of that layer and width: the one with an L0 nearest 100, and where the canonical releases have none, it is
chosen by the same rule among all. Those of Gemma Scope 2 end in the class of their L0: `gemma-3-4b-it/l17_65k_medium`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from featurestore.base.did_you_mean import did_you_mean
from featurestore.errors import UsageError
from ray_jobs.prepare.registry import RegisteredSae, registered_saes, width_word

MAX_TOKENS = 1024
"""What Gemma Scope's SAEs were trained on, and a job's default."""

_SCOPE = re.compile(r"gemma-scope-(?:2b|9b|27b)-(?:pt|it)-res(-canonical)?")
_SCOPE_2 = re.compile(r"gemma-scope-2-\w+-(?:pt|it)-res(-all)?")
_CLASS = re.compile(r"_l0_(small|medium|big)")
_CANONICAL_L0 = 100
"""The canonical SAE of a layer and width is the one with an L0 nearest to it; a test holds the registry to that."""


@dataclass(frozen=True)
class Preset:
    """A short name and what it stands for.

    Attributes:
        name: `gemma-2-9b-it/l20_16k`.
        sae: The SAE.
    """

    name: str
    sae: RegisteredSae

    @property
    def columns(self) -> str:
        """What its columns begin with: `l20_16k`."""
        return self.name.rpartition("/")[2]


@cache
def presets() -> dict[str, Preset]:
    """All presets by name."""
    found: dict[str, tuple[tuple[bool, float], Preset]] = {}
    for sae in registered_saes():
        if (match := _SCOPE.fullmatch(sae.release)) is not None:
            second_choice, tail = match[1] is None, ""
        elif (match := _SCOPE_2.fullmatch(sae.release)) and (of_class := _CLASS.search(sae.id)) and _ends(sae.id):
            second_choice, tail = match[1] is not None, f"_{of_class[1]}"
        else:
            continue
        if not sae.accepted or sae.d_sae is None:
            continue
        place = "embed" if sae.site == "embed" else f"l{sae.layer}"
        preset = Preset(f"{sae.model.rpartition('/')[2]}/{place}_{width_word(sae.d_sae)}{tail}", sae)
        rank = (second_choice, abs((sae.l0 or 0.0) - _CANONICAL_L0))
        if preset.name not in found or rank < found[preset.name][0]:
            found[preset.name] = rank, preset
    return {name: preset for name, (_, preset) in found.items()}


def preset_job(
    names: Sequence[str], corpus: str, store: str, text: str | None = None, id: str | None = None
) -> dict[str, Any]:
    """A job of presets, as JOB.yaml would hold it. The dtype is left to the hardware: bfloat16 on every GPU.

    Args:
        names: Of presets; of one model.
        corpus: Files, as `corpus.path`.
        store: Where to write.
        text: The column with the documents, if it is not `text`.
        id: The column with their ids, if there is one.

    Raises:
        UsageError: There is no such preset, or they are of several models.
    """
    chosen = [find_preset(name) for name in names]
    for one in chosen:
        if chosen.count(one) > 1:
            raise UsageError(f"the preset {one.name} is given twice; remove one")
    for other in chosen:
        if other.sae.model != chosen[0].sae.model:
            raise UsageError(
                f"the presets of a job are of one model: {chosen[0].name} is of {chosen[0].sae.model}, "
                f"{other.name} of {other.sae.model}; make a job of each"
            )
    columns = {"text": text, "id": id}
    return {
        "corpus": {"path": corpus, **{key: value for key, value in columns.items() if value is not None}},
        "model": {"name": chosen[0].sae.model, "max_tokens": MAX_TOKENS},
        "saes": [{"release": one.sae.release, "id": one.sae.id, "name": one.columns} for one in chosen],
        "store": store,
    }


def find_preset(name: str) -> Preset:
    """The preset of a name; the owner of the model may be in front (`google/gemma-2-2b/l12_16k`).

    Raises:
        UsageError: There is none, with those that are like it.
    """
    known, short = presets(), name.strip().removeprefix("google/")
    if short in known:
        return known[short]
    models = sorted({preset.name.partition("/")[0] for preset in known.values()})
    model, _, wanted = short.partition("/")
    if model not in models:
        near = did_you_mean(model, models) or f"; they are of {', '.join(models)}"
        raise UsageError(f"there is no preset {name!r}: none is of a model {model!r}{near}")
    here = [preset.columns for preset in known.values() if preset.name.partition("/")[0] == model]
    classes = [tail for tail in here if wanted and re.fullmatch(rf"{re.escape(wanted)}_(small|medium|big)", tail)]
    if classes:
        raise UsageError(f"the preset {name!r} lacks the class of its L0: {', '.join(classes)} are what there is")
    raise UsageError(
        f"there is no preset {name!r}{did_you_mean(wanted, here) or f'; {model} has {_some(here)}'}"
        f" (sparsemill saes --model {model} --site resid_post shows all)"
    )


def _some(tails: Sequence[str]) -> str:
    return ", ".join(tails[:5]) + (", ..." if len(tails) > 5 else "")


def _ends(id: str) -> bool:
    """Whether an id ends with its L0's class: others are further runs of the same training (`_seed_1`)."""
    return id.endswith(("_small", "_medium", "_big"))
