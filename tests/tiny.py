"""Tiny random checkpoints on disk, real in every other respect: what tests prepare bundles from.

The Gemma 2 model has what makes the big one hard to run right: a saturating attention softcap, a sliding window shorter
than most texts on every second layer, and a tokenizer with byte fallback that adds a beginning-of-sequence token. The
SAEs are written by sae-lens itself, in its own format. Same arguments, same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MODEL_NAME = "tiny-gemma2"
NAN_WORD = "xyzzy"
"""A document with this word gets activations that are not numbers: the word's embedding row is NaN."""
UNEMBEDDED_WORD = "plugh"
"""The tokenizer knows this word, but the embedding matrix has no row for it."""

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
_SPECIAL = (PAD, EOS, BOS, "<unk>", "<start_of_turn>", "<end_of_turn>")
_WORDS = """the of and to in is was for that with on are this be as at not it from by an or you have new more has will
can river bread stone music garden winter letter doctor train market yellow quiet bright sudden slowly people nothing
love hate good bad never always film story paper water light night morning teacher engine model"""
_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def tiny_texts(n: int, seed: int = 0, min_words: int = 1, max_words: int = 60) -> list[str]:
    """`n` different texts of random words, some with accents, digits, newlines and emoji."""
    import random

    rng = random.Random(seed)
    words = _WORDS.split()
    extras = ("naïve", "2024", "\n", "Straße,", "🙂", "don't", "(aside)", "привет")
    return [
        " ".join(
            rng.choice(extras) if rng.random() < 0.08 else rng.choice(words)
            for _ in range(rng.randint(min_words, max_words))
        )
        for _ in range(n)
    ]


def tiny_gemma2(
    directory: str | Path,
    *,
    n_layers: int = 4,
    d_model: int = 32,
    sliding_window: int = 8,
    softcap: float | None = 2.0,
    seed: int = 0,
    tied: bool = True,
    name: str = MODEL_NAME,
) -> Path:
    """Write a random Gemma 2 checkpoint (float32, about 0.3 MB) with its tokenizer.

    Args:
        directory: Where the model's own directory `name` is made.
        n_layers: Decoder layers; they alternate sliding and full attention.
        d_model: Width of the residual stream.
        sliding_window: Tokens that a sliding layer sees.
        softcap: Attention logit cap, or None; attention logits of these weights have a deviation of about 3.
        seed: Other seeds give other weights.
        tied: Whether the embedding is the output matrix, as in the big one; its row of NaN then spoils every logit.
        name: The model's name as SAE metadata refers to it.

    Returns:
        `directory/name`, a Hugging Face model directory.
    """
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    path = Path(directory) / name
    path.mkdir(parents=True, exist_ok=True)
    n_tokens = write_tokenizer(path)
    config = Gemma2Config(
        vocab_size=n_tokens - 1,
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        query_pre_attn_scalar=16,
        attn_logit_softcapping=softcap,
        final_logit_softcapping=5.0,
        sliding_window=sliding_window,
        tie_word_embeddings=tied,
        max_position_embeddings=4096,
        pad_token_id=_SPECIAL.index(PAD),
        bos_token_id=_SPECIAL.index(BOS),
        eos_token_id=_SPECIAL.index(EOS),
    )
    model = Gemma2ForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            std = 0.3 if parameter.ndim == 2 else 0.1
            if "embed_tokens" in parameter_name:
                std = 0.2
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
        model.model.embed_tokens.weight[_token_id(path, NAN_WORD)] = float("nan")
    model.save_pretrained(path)
    return path


def tiny_sae(
    directory: str | Path,
    *,
    layer: int = 2,
    d_in: int = 32,
    d_sae: int = 96,
    architecture: str = "jumprelu",
    apply_b_dec_to_input: bool = False,
    normalize_activations: str = "none",
    model_name: str | None = MODEL_NAME,
    hook_name: str | None = None,
    seed: int = 0,
    dtype: str = "float32",
    **settings: Any,
) -> Path:
    """Write a random SAE in sae-lens' on-disk format (cfg.json, sae_weights.safetensors).

    Args:
        directory: The SAE's own directory; made if missing.
        layer: Layer that the metadata names, as `blocks.{layer}.hook_resid_post` unless `hook_name` is given.
        d_in: Width of the residual stream it reads.
        d_sae: Number of features; about a tenth of them are active on a token of `tiny_gemma2`.
        architecture: `jumprelu`, `standard` (ReLU), or another that sae-lens knows; `batchtopk` and
            `matryoshka_batchtopk` are trained as that and saved for inference, as JumpReLU.
        apply_b_dec_to_input: Whether the decoder bias is subtracted from the input.
        normalize_activations: As in sae-lens.
        model_name: Model that the metadata names; None leaves it out.
        hook_name: Overrides the hook that the metadata names.
        seed: Other seeds give other weights.
        dtype: Precision of the weights on disk.
        settings: More of sae-lens' config, e.g. `k` or `rescale_acts_by_decoder_norm`.

    Returns:
        `directory`.
    """
    import torch
    from sae_lens import SAE, TrainingSAE

    path = Path(directory)
    metadata = {"hook_name": hook_name or f"blocks.{layer}.hook_resid_post", "prepend_bos": True}
    if model_name is not None:
        metadata["model_name"] = model_name
    config = {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": dtype,
        "device": "cpu",
        "apply_b_dec_to_input": apply_b_dec_to_input,
        "normalize_activations": normalize_activations,
        "metadata": metadata,
    }
    if "topk" in architecture:
        config["k"] = 8
    if architecture == "matryoshka_batchtopk":
        config["matryoshka_widths"] = [d_sae // 4, d_sae]
    trained = architecture.endswith("batchtopk")
    sae = (TrainingSAE if trained else SAE).from_dict(config | settings)
    generator = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for parameter_name, parameter in sorted(sae.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter_name == "W_enc":
                noise = noise / d_in**0.5
            elif parameter_name == "threshold":
                noise = 2.0 + 0.5 * noise.abs()
            elif parameter_name == "b_enc":
                noise = -3.0 + 0.3 * noise if architecture == "standard" else 0.3 * noise
            elif parameter_name == "b_gate":
                noise = -3.0 + 0.3 * noise
            elif parameter_name in ("b_mag", "r_mag"):
                noise = 0.3 * noise
            parameter.copy_(noise.to(parameter.dtype))
        if trained:
            sae.topk_threshold.fill_(2.0)
    (sae.save_inference_model if trained else sae.save_model)(path)
    return path


def write_tokenizer(path: Path) -> int:
    """Write a byte-fallback BPE tokenizer in Gemma's manner; returns its number of tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    letters = [*"▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'()<>_-\n"]
    tokens = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    merges: dict[tuple[str, str], None] = {}
    for word in (NAN_WORD, UNEMBEDDED_WORD, *(f"▁{word}" for word in _WORDS.split())):
        for end in range(1, len(word)):
            merges[(word[:end], word[end])] = None
            tokens.append(word[: end + 1])
    tokens.append(tokens.pop(tokens.index(UNEMBEDDED_WORD)))  # the last id: one more than the embedding has rows
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(
        BPE(vocab=vocabulary, merges=list(merges), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, vocabulary[BOS])]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, unk_token="<unk>"
    )
    fast.chat_template = _CHAT_TEMPLATE
    fast.save_pretrained(path)
    return len(vocabulary)


def _token_id(path: Path, token: str) -> int:
    vocabulary = json.loads((path / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return int(vocabulary[token])
