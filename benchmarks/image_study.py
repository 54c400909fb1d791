"""Studies of real images behind a real decoder: SAE features, hidden states and pixels; the tower is random.

`python -m benchmarks.image_study digits photographs --out DIR` writes corpora from what packages carry (scikit-learn's
1,797 handwritten digits; 17 photographs of scikit-image's wheel, each cut into 64 tiles), builds a model, extracts and
studies. The model is Gemma 3 270M up to layer 9, with the shipped SAE, behind a SigLIP tower and a projector of random
weights: no weights of a whole one can be had here. Tables go to the terminal and to DIR/results/NAME.txt.

A tile's class is the photograph that it comes from. Each photograph is cut into 4 x 4 regions of 2 x 2 tiles, and a
region is a group, so that no two tiles of one region are on both sides of a split.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.weights import model_directory
from featurestore.storage.cache import cache_path
from ray_jobs.demo import SAE_DIR, SAE_NAME

LAYER = 9  # of the shipped SAE
SIDE, PATCH, IMAGE_TOKENS = 64, 8, 16
TOWER = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
REGIONS, TILES = 4, 2  # of a side
PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "page.png", "retina.jpg"),
    *("rocket.jpg", "text.png"),
)
Row = dict[str, Any]


def digits() -> Iterator[Row]:
    """Eight by eight grey values each, as PNG."""
    import numpy as np
    from sklearn.datasets import load_digits

    found = load_digits()
    for number, (picture, label) in enumerate(zip(found.images, found.target, strict=True)):
        pixels = np.round(picture * (255 / 16)).astype(np.uint8)
        yield {"id": f"digit-{number}", "image": _png(pixels), "label": str(label), "group": f"digit-{number}"}


def photographs() -> Iterator[Row]:
    """Tiles of the photographs, which are files in the wheel of scikit-image."""
    import importlib.util

    from PIL import Image

    spec = importlib.util.find_spec("skimage")
    assert spec is not None and spec.origin is not None
    for name in PHOTOGRAPHS:
        with Image.open(Path(spec.origin).parent / "data" / name) as opened:
            photograph = opened.convert("RGB")
        label, across = name.partition(".")[0], REGIONS * TILES
        width, height = photograph.width // across, photograph.height // across
        for y in range(across):
            for x in range(across):
                tile = photograph.crop((x * width, y * height, (x + 1) * width, (y + 1) * height))
                group = f"{label}:{y // TILES}-{x // TILES}"
                yield {"id": f"{label}-{y}-{x}", "image": _png(tile), "label": label, "group": group}


CORPORA = {"digits": digits, "photographs": photographs}


def _png(picture: Any) -> dict[str, Any]:
    from PIL import Image

    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    out = io.BytesIO()
    image.save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


def write_model() -> Path:
    """The model of this study as a directory: real decoder, random tower and projector; kept in the cache (0.9 GB).

    Embeddings of images get the length of those of tokens, so that the decoder reads them beside one another.
    """
    import torch
    import transformers

    path = cache_path("benchmarks") / "gemma-3-270m-behind-a-random-tower"
    if path.is_dir():
        return path
    source = model_directory()
    config = transformers.AutoConfig.from_pretrained(source)
    marks = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(source, extra_special_tokens=marks)
    layers = config.num_hidden_layers = LAYER + 1
    config.layer_types = config.layer_types[:layers]
    decoder = transformers.AutoModelForCausalLM.from_pretrained(source, config=config, dtype=torch.float32)
    whole = transformers.Gemma3Config(
        text_config={**config.to_dict(), "vocab_size": decoder.config.vocab_size},
        vision_config={**TOWER, "image_size": SIDE, "patch_size": PATCH, "vision_use_head": False},
        mm_tokens_per_image=IMAGE_TOKENS,
        image_token_index=_known(tokenizer, "image_token"),
        boi_token_index=_known(tokenizer, "boi_token"),
        eoi_token_index=_known(tokenizer, "eoi_token"),
    )
    torch.manual_seed(0)
    model = transformers.Gemma3ForConditionalGeneration(whole).eval()
    model.model.language_model.load_state_dict(decoder.model.state_dict())
    with torch.no_grad():
        for name, parameter in model.model.vision_tower.named_parameters():
            if parameter.ndim > 1:  # matrices that keep the size of what they are given, in place of trained ones
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn_like(parameter) * (1.0 if "position" in name else 1.4) / fan_in**0.5)
        embedding = decoder.model.embed_tokens.weight[500:5000] * config.hidden_size**0.5
        length = float(embedding.norm(dim=1).median())
        projection = model.model.multi_modal_projector.mm_input_projection_weight
        scale = length / (config.hidden_size**0.5 * TOWER["hidden_size"] ** 0.5)
        projection.copy_(torch.randn_like(projection) * scale)
    pixels = transformers.Gemma3ImageProcessorPil(size={"height": SIDE, "width": SIDE})
    processor = transformers.Gemma3Processor(image_processor=pixels, tokenizer=tokenizer, image_seq_length=IMAGE_TOKENS)
    partial = path.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial)
    processor.save_pretrained(partial)
    partial.rename(path)
    return path


def _known(tokenizer: Any, mark: str) -> int:
    return int(getattr(tokenizer, f"{mark}_id"))


def write_job(name: str, out: Path) -> tuple[Path, Path]:
    """Corpus, JOB.yaml and STUDY.yaml; returns the paths of the last two."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (out / "results").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(CORPORA[name]())), out / f"{name}.parquet", row_group_size=256)
    job = {
        "corpus": {"path": f"{name}.parquet", "image": "image", "id": "id", "keep": ["label", "group"]},
        "model": {"name": str(write_model()), "max_tokens": 64},
        "saes": [{"path": str(SAE_DIR), "name": SAE_NAME, "allow_mismatch": True}],
        "pool": ["max", "sum", "count"],
        "hidden": ["mean", "last"],
        "pixels": 8,
        "store": name,
    }
    study = {
        "store": name,
        "label": "label",
        "features": [{"sae": SAE_NAME, "pool": ["max", "sum"]}],
        "baselines": ["pixels", "hidden_mean", "hidden_last"],
        "split": {"test": 0.25, "folds": 4, "seeds": 2, "group": "group"},
        "out": f"results/{name}",
    }
    paths = out / f"{name}.yaml", out / f"{name}-study.yaml"
    for path, mapping in zip(paths, (job, study), strict=True):
        path.write_text(yaml.safe_dump(mapping, sort_keys=False), encoding="utf-8")
    return paths


def main(argv: list[str] | None = None) -> int:
    """Write, extract and study what is asked for."""
    from training.output.printed import format_study
    from training.spec import load_study
    from training.study import run_study

    parser = argparse.ArgumentParser(prog="python -m benchmarks.image_study", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="+", choices=list(CORPORA), metavar="NAME", help=", ".join(CORPORA))
    parser.add_argument("--out", type=Path, required=True, help="directory for corpora, jobs, stores and results")
    args = parser.parse_args(argv)
    for name in args.names:
        job, study = write_job(name, args.out)
        code = subprocess.run([sys.executable, "-m", "sparsemill", "extract", str(job)]).returncode
        if code:
            return code
        result = run_study(load_study(study))
        table = f"{format_study(result)}\n({result.seconds:.0f} s)\n"
        print(f"\n== {name}\n{table}", flush=True)
        (args.out / "results" / f"{name}.txt").write_text(table, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
