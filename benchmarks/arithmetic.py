"""What a token costs on paper: operations and bytes of each configuration, before anything is measured.

Operations a token are those of the matrices (2 x inputs x outputs), of the attention over the keys that a token sees on
average, and of the SAE encoders; norms, GELU and pooling are left out. Bytes are the weights, read once a batch. The
limit is the slower of the two on a machine of given rates. `python -m benchmarks.arithmetic` prints the table of
docs/performance.md.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from benchmarks.limit import layer_matrices


@dataclass(frozen=True)
class Shape:
    """A decoder: widths and heads."""

    name: str
    d_model: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    mlp: int

    def layer_parameters(self) -> int:
        """Matrix entries of one layer."""
        config = {
            "hidden_size": self.d_model,
            "intermediate_size": self.mlp,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
        }
        return sum(inputs * outputs for inputs, outputs in layer_matrices(config).values())

    def layer_operations(self, keys: float) -> float:
        """Operations a token of one layer, with so many keys seen."""
        return 2 * self.layer_parameters() + 4 * self.n_heads * self.head_dim * keys


GEMMA_3_270M = Shape("gemma-3-270m", 640, 4, 1, 256, 2048)
GEMMA_2_2B = Shape("gemma-2-2b", 2304, 8, 4, 256, 9216)
GEMMA_2_9B = Shape("gemma-2-9b", 3584, 16, 8, 256, 14336)


@dataclass(frozen=True)
class Configuration:
    """A model up to its deepest hook, and the widths of the SAEs that read it."""

    shape: Shape
    layer: int
    widths: tuple[int, ...]

    @property
    def name(self) -> str:
        """Model, layer, widths."""
        return f"{self.shape.name}, layer {self.layer}, " + " + ".join(f"{width:,}" for width in self.widths)

    def operations(self, keys: float) -> float:
        """Operations a token."""
        return (self.layer + 1) * self.shape.layer_operations(keys) + 2 * self.shape.d_model * sum(self.widths)

    def weight_bytes(self) -> int:
        """Bytes of bfloat16 weights that a batch reads: layers and encoders (embeddings are looked up)."""
        parameters = (self.layer + 1) * self.shape.layer_parameters() + self.shape.d_model * sum(self.widths)
        return 2 * parameters


CONFIGURATIONS = (
    Configuration(GEMMA_3_270M, 9, (4_096,)),
    Configuration(GEMMA_3_270M, 9, (16_384,)),
    Configuration(GEMMA_3_270M, 9, (262_144,)),
    Configuration(GEMMA_2_2B, 12, (16_384,)),
    Configuration(GEMMA_2_2B, 12, (65_536,)),
    Configuration(GEMMA_2_2B, 19, (16_384, 16_384, 16_384)),
    Configuration(GEMMA_2_9B, 20, (16_384,)),
    Configuration(GEMMA_2_9B, 20, (131_072,)),
    Configuration(GEMMA_2_9B, 20, (1_048_576,)),
)


def table(keys: float, teraflops: float, gigabytes: float, batch_tokens: int) -> str:
    """Markdown: operations, bytes, and the tokens a second that a machine of these rates cannot exceed."""
    lines = [
        "| configuration | Gop a token | weights a batch | compute limit | memory limit |",
        "|---|---|---|---|---|",
    ]
    for configuration in CONFIGURATIONS:
        operations, weights = configuration.operations(keys), configuration.weight_bytes()
        compute, memory = teraflops * 1e12 / operations, gigabytes * 1e9 / weights * batch_tokens
        costs = f"{operations / 1e9:.3f} | {weights / 1e9:.2f} GB"
        lines.append(f"| {configuration.name} | {costs} | {compute:,.0f} | {memory:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--keys", type=float, default=128, help="keys that a token sees on average (default %(default)s)"
    )
    parser.add_argument("--teraflops", type=float, default=790, help="bfloat16 rate (default: one H100, %(default)s)")
    parser.add_argument("--gigabytes", type=float, default=3350, help="memory, GB/s (default: one H100, %(default)s)")
    parser.add_argument("--batch-tokens", type=int, default=16_384, help="tokens of a batch (default %(default)s)")
    arguments = parser.parse_args()
    print(table(arguments.keys, arguments.teraflops, arguments.gigabytes, arguments.batch_tokens))


if __name__ == "__main__":
    main()
