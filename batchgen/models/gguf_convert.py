"""The converter's process: `python -m batchgen.models.gguf_convert FILE FOLDER`.

    FILE ──► transformers (reads GGUF, dequantises) ──► float32 safetensors, config, tokenizer

Everything a later reader needs must survive: the chat template, the tokens that end an answer, and
how text is split before the merges apply. The last is not in transformers for every family.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GgufConfig,
    PreTrainedModel,
    TokenizersBackend,
)

from batchgen.models.gguf_header import read_gguf_header

SPLIT = "tokenizer.ggml.pre"
END_OF_TURN = "tokenizer.ggml.eot_token_id"

# Values of SPLIT for byte-level vocabularies that transformers leaves on GPT-2's own split.
# These learned their merges with every digit apart ("  12" is "  " "1" "2", never " " " 12").
DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "codeshell"})
AS_GPT2 = frozenset({"gpt-2", "mpt", "olmo", "phi-2"})


def main(arguments: list[str]) -> int:
    """Convert; the last line on standard error is the reason where it fails."""
    source, target = (Path(argument) for argument in arguments)
    logging.disable(logging.WARNING)
    metadata = read_gguf_header(source).metadata
    tokenizer = load_tokenizer(source, str(metadata.get(SPLIT, "")))
    model = load_model(source)
    save_model(model, target, end_of_turn=metadata.get(END_OF_TURN))
    tokenizer.save_pretrained(target)
    return 0


def load_tokenizer(source: Path, split: str) -> TokenizersBackend:
    """Load the tokenizer and mend how it splits text; raise ValueError where that is not known."""
    tokenizer: TokenizersBackend = TokenizersBackend.from_pretrained(
        source.parent, gguf_file=source.name
    )
    backend = tokenizer.backend_tokenizer
    if not isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel) or split in AS_GPT2:
        return tokenizer
    if split not in DIGITS_APART:
        raise ValueError(f"its text splitting {split!r} is not known, tokens would be wrong")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return tokenizer


def load_model(source: Path) -> PreTrainedModel:
    """Load the weights as float32, every block dequantised."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    )
    return model


def save_model(model: PreTrainedModel, target: Path, *, end_of_turn: object) -> None:
    """Write config, generation config and safetensors as of a model that never was GGUF."""
    config = model.config
    # What only the GGUF loader meant: the model's title and how its blocks were packed.
    for name in ("quantization_config", "_model_name_or_path"):
        if hasattr(config, name):
            delattr(config, name)
    config.architectures = [type(model).__name__]
    config.name_or_path = ""
    with torch.device("meta"):
        plain = type(model)(config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = GenerationConfig.from_model_config(config)
    plain.generation_config._from_model_config = False  # it is the model's own from here on
    if isinstance(end_of_turn, int) and end_of_turn != config.eos_token_id:
        plain.generation_config.eos_token_id = [config.eos_token_id, end_of_turn]
    plain.save_pretrained(target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
