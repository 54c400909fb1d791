"""Generate text with any causal model that transformers reads, from a directory or a GGUF file on this machine.

Greedy and one prompt at a time, so that an answer depends on its prompt alone; bounded in length. Only safetensors and
GGUF are opened, no code from a checkpoint is run, and nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from featurestore.base.library_errors import brief
from featurestore.errors import BundleError
from ray_jobs.prepare.checkpoint import Checkpoint, find_checkpoint
from ray_jobs.spec import ModelSpec

NEW_TOKENS = 24  # of an answer: a name has ten
PROMPT_TOKENS = 4096  # of a prompt; eight pieces of twenty tokens and the examples have four hundred


def find_generator(model: str) -> Checkpoint:
    """Find a model on this machine.

    Raises:
        BundleError: There is none at this path.
    """
    path = Path(model).expanduser()
    if not path.exists():
        raise BundleError(f"{model}: there is no such model; give the directory or the GGUF file of one that is here")
    try:
        return find_checkpoint(ModelSpec(name=str(path)))
    except BundleError as error:
        raise BundleError(str(error).replace("model.name: ", "")) from None


def generate(generator: Checkpoint, prompts: Sequence[str]) -> Iterator[str]:
    """What a model writes after each of some prompts.

    Args:
        generator: From `find_generator`.
        prompts: Texts.

    Yields:
        The continuation of each, without special tokens.

    Raises:
        BundleError: The model cannot be read, or is no causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    where: dict[str, Any] = {"pretrained_model_name_or_path": generator.directory}
    where |= {"local_files_only": True} | ({"gguf_file": generator.gguf} if generator.gguf else {})
    safe = {} if generator.gguf else {"use_safetensors": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(**where, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(**where, **safe, dtype="auto", trust_remote_code=False).eval()
    except Exception as error:  # noqa: BLE001 (libraries raise anything)
        raise BundleError(
            f"{generator.source}: cannot be read as a text generator ({brief(error)}); give another model"
        ) from None
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    stop = [i for i in {tokenizer.eos_token_id, *_ids(model.generation_config.eos_token_id)} if i is not None]
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else next(iter(stop), 0)
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=pad, eos_token_id=sorted(stop) or None
    )
    for prompt in prompts:
        fed = tokenizer(prompt, return_tensors="pt", truncation=True, max_length=PROMPT_TOKENS)
        fed = {name: fed[name].to(model.device) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            ids = model.generate(**fed, generation_config=settings)
        yield str(tokenizer.decode(ids[0, fed["input_ids"].shape[1] :], skip_special_tokens=True))


def _ids(value: Any) -> Sequence[int]:
    return value if isinstance(value, list | tuple) else [value] if value is not None else []
