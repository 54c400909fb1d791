"""Widths of layers are read from configs that call them by many names; of images those of the tower too."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from featurestore.errors import BundleError
from ray_jobs.planning.shapes import Shapes, shapes_of


def of(directory: Path, config: dict[str, Any], vision: bool = False) -> tuple[Shapes, Shapes | None]:
    (directory / "config.json").write_text(json.dumps(config))
    return shapes_of(SimpleNamespace(path=directory, d_model=96, vision=vision or None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
             "intermediate_size": 200},
            Shapes(layers=2, D=96, M=200, H=4, K=2, E=32),
        ),
        ({"n_layer": 3, "n_head": 6, "n_inner": None}, Shapes(layers=3, D=96, M=384, H=6, K=6, E=16)),
        ({"num_layers": 5, "num_heads": 12, "ffn_dim": 100}, Shapes(layers=5, D=96, M=100, H=12, K=12, E=8)),
        ({"layers": 5}, Shapes(layers=0, D=96, M=384, H=1, K=1, E=96)),
    ],
)  # fmt: skip
def test_a_decoder_is_as_wide_as_its_config_says(config: dict[str, Any], expected: Shapes, tmp_path: Path) -> None:
    assert of(tmp_path, config) == (expected, None)


def test_of_images_the_decoders_config_and_the_towers_are_read(tmp_path: Path) -> None:
    tower = {"num_hidden_layers": 2, "hidden_size": 48, "num_attention_heads": 3, "intermediate_size": 64}
    config = {"text_config": {"num_attention_heads": 4, "head_dim": 8}, "vision_config": tower}
    decoder, found = of(tmp_path, config, vision=True)
    assert (decoder.D, decoder.H, decoder.E) == (96, 4, 8)
    assert found == Shapes(layers=2, D=48, M=64, H=3, K=3, E=16)


@pytest.mark.parametrize("config", [[], {"text_config": {}}])
def test_a_config_that_cannot_be_read_is_refused(config: Any, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        of(tmp_path, config, vision=True)
