"""Converts the tensors of a GGUF file to parameters of a transformers model.

Every tensor of the file becomes a parameter or a part of one, or is refused by its name. If a
parameter of the model is not in the file, the import is refused with its name.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from batchgen.errors import UnsafeModel, UnsupportedModel
from batchgen.models.gguf.families import Family
from batchgen.models.gguf.header import GgufHeader, GgufTensor
from batchgen.models.gguf.rope import FREQUENCIES, LONG, SHORT

Array = npt.NDArray[np.float32]
Weights = dict[str, Array]

BLOCK = re.compile(r"blk\.(\d+)\.(.+)")
SHOWN = 5  # names in a message


def read_factors(source: Path, header: GgufHeader) -> Weights:
    """Return {name: tensor that divides rotary frequencies}."""
    names = [name for name in (FREQUENCIES, LONG, SHORT) if name in header.tensors]
    return {name: read_tensor(source, name, header.tensors[name]) for name in names}


def read_weights(
    source: Path, header: GgufHeader, family: Family, values: dict[str, Any]
) -> Weights:
    """Return {parameter: float32 array} for all tensors; raise UnsupportedModel.

    `values` are the values of the model's configuration.
    """
    parts: dict[str, list[Array]] = {}
    used = {FREQUENCIES, LONG, SHORT} if family.rotary else set()
    names = sorted(header.tensors.keys() - used)  # gate before up: both may be one parameter
    places = {name: parameter_of(name, family) for name in names}
    unknown = [name for name, place in places.items() if place is None]
    if unknown:
        raise UnsupportedModel(
            f"its tensors {_listed(unknown)} are not known here and may change the answers"
        )
    for name, place in places.items():
        array = read_tensor(source, name, header.tensors[name])
        parts.setdefault(str(place), []).append(_laid_out(array, name, family, values))
    return {
        name: arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=1)
        for name, arrays in parts.items()
    }


def parameter_of(name: str, family: Family) -> str | None:
    """Return the parameter that a tensor belongs to, None if the family has no such tensor."""
    stem, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        return None
    if match := BLOCK.fullmatch(stem):
        layer, leaf = match.groups()
        if leaf not in family.block:
            return None
        place = f"{family.layers}.{layer}.{family.block[leaf]}"
        return place if leaf.endswith("_exps") else f"{place}.{kind}"
    return f"{family.ends[stem]}.{kind}" if stem in family.ends else None


def check_shapes(weights: Weights, wanted: dict[str, tuple[int, ...]]) -> None:
    """Raise UnsupportedModel unless `weights` are exactly the wanted parameters, in their shapes.

    Dimensions of size one may differ; the arrays are reshaped in place.
    """
    missing = sorted(wanted.keys() - weights.keys())
    if missing:
        raise UnsupportedModel(f"it lacks weights: {_listed(missing)}")
    extra = sorted(weights.keys() - wanted.keys())
    if extra:
        raise UnsupportedModel(f"this kind of model has no {_listed(extra)}, but the file has")
    for name, shape in wanted.items():
        held = weights[name].shape
        if [size for size in held if size != 1] != [size for size in shape if size != 1]:
            raise UnsupportedModel(f"{name} has the shape {held}, and its keys say {shape}")
        weights[name] = weights[name].reshape(shape)


def read_tensor(source: Path, name: str, tensor: GgufTensor) -> Array:
    """Return one tensor as float32; raise UnsafeModel if it does not fit in the file.

    Raise UnsupportedModel if its type is unknown.
    """
    try:
        kind = gguf.GGMLQuantizationType(tensor.kind)
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        rows = (*tensor.shape[:-1], tensor.shape[-1] // elements * size)
        if tensor.offset + math.prod(rows) > source.stat().st_size or tensor.shape[-1] % elements:
            raise UnsafeModel(f"{name} is larger than the file. Fetch it again.")
        raw = np.memmap(source, dtype=np.uint8, mode="r", offset=tensor.offset, shape=rows)
        array = gguf.dequantize(np.asarray(raw), kind)
    except (ValueError, NotImplementedError, IndexError) as error:
        raise UnsupportedModel(f"{name} is packed in a way that is not known ({error})") from error
    return np.array(array, dtype=np.float32).reshape(tensor.shape)


def _laid_out(array: Array, name: str, family: Family, values: dict[str, Any]) -> Array:
    """Return a tensor in transformers' layout, converted from llama.cpp's."""
    leaf = name.rsplit(".", 2)[-2]
    if family.paired and leaf in ("attn_q", "attn_k"):
        heads = values["num_attention_heads" if leaf == "attn_q" else "num_key_value_heads"]
        return _halves(array, heads)
    if family.centred and leaf.endswith("norm") and name.endswith(".weight"):
        return array - np.float32(1)
    if leaf in family.transposed and array.ndim == 2:
        return np.ascontiguousarray(array.T)
    return array


def _halves(array: Array, heads: int) -> Array:
    """Reorder rows from rotary pairs to halves: (heads, half, 2, …) to (heads, 2, half, …)."""
    if len(array) % (2 * heads):
        raise UnsupportedModel(f"{len(array)} rows of a query or key do not divide into {heads}")
    pairs = array.reshape(heads, -1, 2, *array.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(array.shape)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
