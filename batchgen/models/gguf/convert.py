"""The converter's process: `python -m batchgen.models.gguf.convert FILE FOLDER`.

    header ─► configuration ─► empty model ◄── tensors, unpacked to float32, counted both ways
                                   └─► safetensors, config, generation config, tokenizer

Everything that changes answers is converted, or refused by name: see `config.py` and `tensors.py`.
"""

from __future__ import annotations

import logging
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from batchgen.models.gguf.config import family_of, read_config
from batchgen.models.gguf.header import GgufHeader, read_gguf_header
from batchgen.models.gguf.tensors import Weights, check_shapes, read_factors, read_weights
from batchgen.models.gguf.tokens import TOKENS, end_tokens, load_tokenizer
from batchgen.models.trust.confined import answer

# Bytes for vocabulary, merges and libraries, besides the weights.
WORKING_MEMORY = 4 << 30


def main(arguments: list[str]) -> int:
    """Convert with a memory limit for the file's size; see `confined`. Return the exit status."""
    source, target = (Path(argument) for argument in arguments)
    logging.disable(logging.WARNING)
    tensors = read_gguf_header(source).tensors.values()
    weights = 4 * sum(math.prod(tensor.shape) for tensor in tensors)
    # The weights twice, while parts are unpacked or joined, and the mapped file.
    memory = WORKING_MEMORY + 2 * weights + 2 * source.stat().st_size
    return answer(lambda: convert(source, target), memory=memory)


def convert(source: Path, target: Path) -> str:
    """Write the model of `source` into `target`; raise UnsupportedModel or UnsafeModel."""
    header = read_gguf_header(source, texts=frozenset({TOKENS}))
    family = family_of(header)
    values = read_config(header, read_factors(source, header))
    tokenizer = load_tokenizer(source, header)
    model = empty_model(family.model_type, values)
    fill(model, read_weights(source, header, family, values))
    save(model, target, header=header)
    tokenizer.save_pretrained(target)
    return ""


def empty_model(model_type: str, values: dict[str, Any]) -> PreTrainedModel:
    """Return a model with the configuration `values`, without weights."""
    config = AutoConfig.for_model(model_type, **values)
    config.dtype = torch.float32
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def fill(model: PreTrainedModel, weights: Weights) -> None:
    """Load `weights` into the model; raise UnsupportedModel unless they are exactly its own."""
    # Tied weights are one parameter.
    wanted = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    _add_zero_biases(weights, wanted)
    check_shapes(weights, wanted)
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    left = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    assert not left, left


def _add_zero_biases(weights: Weights, wanted: dict[str, tuple[int, ...]]) -> None:
    """If no layer of the file has a bias after attention, add zeros for it.

    transformers has one flag for all four biases of attention; zeros change nothing.
    """
    biases = [name for name in wanted if name.endswith("self_attn.o_proj.bias")]
    if not any(name in weights for name in biases):
        weights |= {name: np.zeros(wanted[name], np.float32) for name in biases}


def save(model: PreTrainedModel, target: Path, *, header: GgufHeader) -> None:
    """Write config, generation config and safetensors of the model."""
    config = model.config
    config.architectures = [type(model).__name__]
    generation = GenerationConfig.from_model_config(config)
    generation._from_model_config = False  # else transformers may derive it from the config again
    ends = end_tokens(header)
    generation.eos_token_id = ends[0] if len(ends) == 1 else ends or None
    model.generation_config = generation
    model.save_pretrained(target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
