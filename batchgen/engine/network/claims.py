"""Checks that the weights of a model's class are the weights in its files, no more and no less."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import transformers

from batchgen.errors import UnsupportedModel
from batchgen.models.weights import count_weights

# A class may create some weights that its files leave out, and tables of positions.
SLACK = 2
HARMLESS = 1 << 24  # weights
HARMLESS_TABLES = 256 << 20  # bytes


def check_weights_held(config: Any, path: Path) -> None:
    """Raise UnsupportedModel if the model has far more weights than its files.

    transformers allocates a missing weight at its full size, and reports it only afterwards.
    """
    loader: Any = transformers.AutoModelForCausalLM
    with torch.device("meta"):
        network = loader.from_config(deepcopy(config))
    # Tied weights are one parameter here.
    claimed = sum(parameter.numel() for parameter in network.parameters())
    held = sum(count_weights(file) for file in path.glob("*.safetensors"))
    if claimed > max(HARMLESS, SLACK * held):
        raise UnsupportedModel(
            f"config.json describes a model of {claimed:,} weights, and the safetensors files "
            f"hold {held:,}. Fetch the files that belong together."
        )
    tables = sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())
    if tables > HARMLESS_TABLES + 4 * held:
        raise UnsupportedModel(
            f"This {config.model_type} model makes tables of {tables:,} bytes for the lengths that "
            "config.json names. Lower max_position_embeddings."
        )


def left_out(network: Any, unexpected: Iterable[str]) -> list[str]:
    """Return the names of weights in the files that a layer of `network` has but does not use.

    If the configuration says that a layer has no bias, a bias in the files would be dropped and the
    answers would be wrong. Weights of no layer, such as an image tower, do not affect text.
    """
    layers = {name for name, module in network.named_modules() if _has_weight(module)}
    return sorted(
        key
        for key in unexpected
        if key.rpartition(".")[0] in layers and key.endswith((".weight", ".bias"))
    )


def _has_weight(module: Any) -> bool:
    return isinstance(getattr(module, "weight", None), torch.nn.Parameter)
