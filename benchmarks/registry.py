"""How many of the SAEs in sae-lens' registry can be run: every one goes through the loader, up to its weights.

    python -m benchmarks.registry [--sample N] [--json] [--record]

There is no hub in this: what sae-lens' config getters would download (hyperparams, cfg and config files, the shapes in
a safetensors header) are stand-ins, made of what registry and names say. Everything else is what a job would meet:
sae-lens' own registry, getters and loaders, our judgement of the config that comes of it, our refusal of pickles. An
SAE is accepted when its loader comes to fetch the weights. The answer is held against what `sparsemill saes` says of
it without sae-lens: verdict, model, site, layer, width and what it needs.

What a stand-in cannot tell is what only the file says. Of sae-lens' own format that is architecture and normalisation
(they are taken to be `standard` and `none`), of `dictionary_learning_1` the class, of `mntss_clt_layer_transcoder` the
hook (taken to be `hook_resid_mid`).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from benchmarks import machine, report
from featurestore.errors import BundleError
from ray_jobs.backbone.decoder_layouts import width_of
from ray_jobs.backbone.sites import Hook
from ray_jobs.prepare import hub, sae_loader
from ray_jobs.prepare.judge_sae import SaeConfig, Wanted, judge
from ray_jobs.prepare.models import hub_name, known_config, same_model
from ray_jobs.prepare.registry import ALLOW_PICKLE, Entry, RegisteredSae, described, entries, said_of, trained_on
from ray_jobs.spec import SaeSpec

COMMIT = "0" * 40
FEATURES = 16_384  # of an SAE whose width only its files tell
DICTIONARIES = {"topk": "AutoEncoderTopK", "gated": "GatedAutoEncoder", "matryoshka": "MatryoshkaBatchTopKSAE"}
"""What releases of `dictionary_learning_1` are called -> the class that their configs name."""


class Fetching(BaseException):
    """A loader has come to fetch weights; not an Exception, so that nobody takes it for a failure."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class Walked:
    """What became of one SAE.

    Attributes:
        predicted: What `sparsemill saes` says of it.
        assumed: Its architecture stands in a file that has a stand-in here.
        config: What sae-lens' config getter said; None where it said nothing.
        weights: The file that its loader came to fetch; None where it was refused before.
        reason: Why it was refused.
    """

    predicted: RegisteredSae
    assumed: bool
    config: SaeConfig | None
    weights: str | None
    reason: str | None

    def differs(self) -> list[str]:
        """In what the loader's answer is another than the prediction."""
        predicted, found = self.predicted, []
        if predicted.accepted != (self.weights is not None):
            found.append("verdict")
        if self.weights is not None and (predicted.needs == ALLOW_PICKLE) != hub.is_pickle(self.weights):
            found.append("needs")
        if self.config is None:
            return found
        model = hub_name(str(self.config.model))
        if not same_model(model, predicted.model):
            found.append("model")
        if self.weights is not None:
            hook = judge("", self.config, model, known_config(model), Wanted()).hook
            if predicted.site not in (None, hook.site):
                found.append("site")
            if predicted.layer != hook.layer:
                found.append("layer")
        if predicted.d_sae not in (None, self.config.d_sae):
            found.append("d_sae")
        return found


def walk(chosen: Iterable[Entry]) -> Iterator[Walked]:
    """Take SAEs through the loader, one after the other."""
    with tempfile.TemporaryDirectory() as name, _no_hub(Path(name)) as stand_in:
        for entry in chosen:
            stand_in.entry, stand_in.config = entry, None
            yield _walked(entry, stand_in)


def _walked(entry: Entry, stand_in: _StandIn) -> Walked:
    predicted = described(entry)
    model = predicted.model
    spec = SaeSpec(release=entry.release, id=entry.id, name="sae", allow_pickle=predicted.needs == ALLOW_PICKLE)
    weights = reason = None
    try:
        sae_loader.load_sae(spec, model, known_config(model))
        raise AssertionError("no weights were asked for")
    except Fetching as fetching:
        weights = fetching.name
    except BundleError as refused:
        reason = str(refused).removeprefix("SAE 'sae'").removeprefix(":").strip()
    return Walked(predicted, said_of(entry).architecture is None, stand_in.config, weights, reason)


class _StandIn:
    """Answers what sae-lens downloads of one SAE at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.entry: Entry | None = None
        self.config: SaeConfig | None = None

    def download(self, repo_id: str, filename: str, subfolder: str = "", **_options: Any) -> str:
        """The path of a file that stands in for one of a repository."""
        from huggingface_hub.errors import EntryNotFoundError

        assert self.entry is not None and repo_id == self.entry.repo, (repo_id, self.entry)
        said = _config_file(self.entry, filename)
        if said is None and filename.endswith((".json", ".yaml")):
            raise EntryNotFoundError(f"{filename} has no stand-in")
        if said is None:
            raise Fetching("/".join(filter(None, (subfolder, filename))))
        path = self._folder / filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(said) if filename.endswith(".json") else yaml.safe_dump(said), encoding="utf-8")
        return str(path)

    def shapes(self, repo_id: str, filename: str) -> dict[str, list[int]]:
        """The shapes of the tensors of a safetensors file."""
        assert self.entry is not None and repo_id == self.entry.repo
        d_in, d_sae = _sizes(self.entry)
        layer = filename.removesuffix(".safetensors").rpartition("_")[2]
        return {
            "w_enc": [d_in, d_sae],
            "w_dec": [d_sae, d_in],
            f"b_dec_{layer}": [d_in],
            f"b_enc_{layer}": [d_sae],
        }

    def noted(self, config: Mapping[str, Any]) -> SaeConfig:
        """What a getter said, which is kept."""
        said = SaeConfig.of(config)
        assert self.entry is not None
        self.config = said_with_model(self.entry, said)
        return said


def said_with_model(entry: Entry, said: SaeConfig) -> SaeConfig:
    """As the loader corrects it."""
    return replace(said, model=trained_on(entry.release, said.model))


@contextmanager
def _no_hub(folder: Path) -> Iterator[_StandIn]:
    """While it lasts, sae-lens gets stand-ins, and no commit is asked for."""
    from sae_lens.loading import pretrained_sae_loaders as loaders

    stand_in = _StandIn(folder)
    before = (loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes, hub.commit_of)
    getter = loaders.load_sae_config_from_huggingface

    def noted(*args: Any, **options: Any) -> dict[str, Any]:
        config = getter(*args, **options)
        stand_in.noted(config)
        return config

    loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes = stand_in.download, stand_in.shapes
    loaders.load_sae_config_from_huggingface = noted
    hub.commit_of = lambda _repo, _revision=None: COMMIT
    try:
        yield stand_in
    finally:
        loaders.hf_hub_download, loaders.get_safetensors_tensor_shapes, hub.commit_of = before
        loaders.load_sae_config_from_huggingface = getter


def _sizes(entry: Entry) -> tuple[int, int]:
    """d_in and d_sae of an SAE: of the model at its site, and of its name."""
    said, row = said_of(entry), described(entry)
    config = known_config(row.model)
    if said.hook is None:
        return config.hidden_size, row.d_sae or FEATURES
    site, layer = str(row.site), int(row.layer or 0)
    return width_of(config, Hook(layer, site))[0], row.d_sae or FEATURES


def _config_file(entry: Entry, name: str) -> Mapping[str, Any] | None:
    """What stands in for a small file of an SAE's repository; None where there is none."""
    d_in, d_sae = _sizes(entry)
    said, kind = said_of(entry), (entry.converter, name.rpartition("/")[2])
    if kind[0] == "connor_rob_hook_z" and name.endswith("_cfg.json"):
        return {"act_size": d_in, "dict_size": d_sae, "act_name": said.hook}
    if kind == ("sae_lens", "cfg.json"):
        return {"architecture": "standard", "d_in": d_in, "d_sae": d_sae, "dtype": "float32", "hook_name": said.hook,
                "model_name": entry.model, "normalize_activations": "none"}  # fmt: skip
    if kind == ("llama_scope", "hyperparams.json"):
        norm = {"in": 1.0, "out": 1.0}
        return {"d_model": d_in, "d_sae": d_sae, "jump_relu_threshold": 1.0, "hook_point_in": said.hook,
                "dataset_average_activation_norm": norm}  # fmt: skip
    if kind == ("llama_scope_r1_distill", "config.json"):
        return {"d_model": d_in, "expansion_factor": d_sae // d_in, "hook_point_in": said.hook}
    if kind == ("dictionary_learning_1", "config.json"):
        layer = int(str(re.search(r"layer_(\d+)", entry.path)[1]))  # type: ignore[index]
        named = next((made for word, made in DICTIONARIES.items() if word in entry.path.lower()), "AutoEncoder")
        trainer = {"layer": layer, "dict_class": named, "k": 40, "activation_dim": d_in, "dict_size": d_sae}
        return {"trainer": {**trainer, "lm_name": hub_name(entry.model)}, "buffer": {"ctx_len": 128}}
    if kind == ("mwhanna_transcoder", "wandb-config.yaml"):
        sizes = {"d_model": d_in, "d_feature": d_sae, "batch_size": 4096}
        return {key: {"value": value} for key, value in sizes.items()}
    if kind == ("mwhanna_transcoder", "config.yaml"):
        return {"model_name": hub_name(entry.model)}
    if kind == ("mntss_clt_layer_transcoder", "config.yaml"):
        hooks = {"feature_input_hook": "hook_resid_mid", "feature_output_hook": "hook_mlp_out"}
        return {"model_name": hub_name(entry.model), **hooks}
    if kind == ("temporal", "conf.yaml"):
        sae = {"exp_factor": 4, "n_heads": 1, "n_attn_layers": 1, "bottleneck_factor": 1, "sae_diff_type": "topk",
               "kval_topk": 64, "tied_weights": True, "scaling_factor": 1.0}  # fmt: skip
        return {"llm": {"dimin": d_in}, "sae": sae, "data": {"dtype": "float32"}}
    return None


def sample(per_release: int) -> list[Entry]:
    """The first so many SAEs of each release."""
    seen: Counter[str] = Counter()
    chosen = []
    for entry in entries():
        seen[entry.release] += 1
        if seen[entry.release] <= per_release:
            chosen.append(entry)
    return chosen


def figures_of(walked: Sequence[Walked]) -> dict[str, Any]:
    """Shares, by site and by reason; and every difference between loader and prediction."""
    accepted = [one for one in walked if one.weights is not None]
    sites = Counter(str(one.predicted.site) for one in walked)
    well = Counter(str(one.predicted.site) for one in accepted)
    differences = [
        {"release": one.predicted.release, "id": one.predicted.id, "differs": found}
        for one in walked
        if (found := one.differs())
    ]
    return {
        "saes": len(walked),
        "releases": len({one.predicted.release for one in walked}),
        "accepted": len(accepted),
        "assumed": sum(one.assumed for one in accepted),
        "pickled": sum(one.predicted.needs == ALLOW_PICKLE for one in accepted),
        "sites": {site: {"saes": n, "accepted": well[site]} for site, n in sites.most_common()},
        "refused": dict(Counter(str(one.reason) for one in walked if one.weights is None).most_common()),
        "differences": differences,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Walk, and print or write what was found; exit code 1 where loader and prediction differ."""
    args = _parser().parse_args(argv)
    described_machine, begun = machine.describe(), time.perf_counter()
    found = figures_of(list(walk(entries() if args.sample is None else sample(args.sample))))
    seconds = time.perf_counter() - begun
    figures = {"machine": described_machine, "command": sys.argv[1:], "seconds": seconds, **found}
    if args.record:
        print(report.record("registry", figures, described_machine), file=sys.stderr)
    print(json.dumps(figures, indent=1) if args.json else shown(figures))
    return 1 if figures["differences"] else 0


def shown(figures: Mapping[str, Any]) -> str:
    """For a terminal."""
    lines = [
        f"{figures['saes']:,} SAEs in {figures['releases']} releases: {figures['accepted']:,} can be run "
        f"({figures['accepted'] / figures['saes']:.2%}), {figures['pickled']:,} of them with allow_pickle: true",
        f"(of {figures['assumed']:,} the architecture stands in a file and is taken to be one that is supported)",
        "",
        f"{'site':<16}{'SAEs':>8}{'run':>8}{'share':>9}",
    ]
    for site, of_site in figures["sites"].items():
        name = "in a file" if site == "None" else site
        share = f"{of_site['accepted'] / of_site['saes']:.2%}"
        lines.append(f"{name:<16}{of_site['saes']:>8,}{of_site['accepted']:>8,}{share:>9}")
    lines += ["", "refused, and why:"]
    lines += [f"{n:>6,}  {reason}" for reason, n in figures["refused"].items()] or ["  none"]
    lines += ["", f"what `sparsemill saes` says and what the loader does differ for {len(figures['differences']):,}"]
    lines += [f"  {one['release']} {one['id']}: {', '.join(one['differs'])}" for one in figures["differences"][:20]]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.registry", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sample", type=int, metavar="N", help="the first N SAEs of each release alone")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record", action="store_true", help="write into benchmarks/results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
