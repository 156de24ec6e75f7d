"""Converts the rotary embeddings of a GGUF file to transformers' `rope_parameters`.

llama.cpp                                   transformers
scaling.type none or missing                default
scaling.type linear, or a factor alone      linear
scaling.type yarn                           yarn
rope_factors_{long,short}.weight            longrope
rope_freqs.weight (Llama 3.1)               llama3, or longrope with one factor for every length
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from batchgen.errors import UnsupportedModel
from batchgen.models.gguf.header import GgufHeader

BASE = 10_000.0  # rotary base if the file has none
ROPE_KEYS = frozenset(
    {
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scaling.type",
        "rope.scaling.factor",
        "rope.scaling.original_context_length",
        "rope.scaling.attn_factor",
        "rope.scaling.yarn_ext_factor",
        "rope.scaling.yarn_attn_factor",
        "rope.scaling.yarn_beta_fast",
        "rope.scaling.yarn_beta_slow",
        "rope.scaling.finetuned",  # changes nothing
    }
)
#: Tensors that are read here and belong to no layer.
FREQUENCIES = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"

Factors = npt.NDArray[np.float32]

# The constants of Llama 3.1 to 3.3, without their factor.
LLAMA3 = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8_192,
}
TOLERANCE = 1e-5  # relative, for float32 operations in another order


def rope_parameters(
    header: GgufHeader, factors: dict[str, Factors], *, width: int, length: int, partial: bool
) -> dict[str, Any]:
    """Return `rope_parameters` of the file for heads of `width` elements; raise UnsupportedModel.

    `factors` are {name: tensor that divides rotary frequencies} of the file.
    """
    reader = _Rope(header, width=width, length=length)
    turned = int(reader.number("dimension_count", width))
    found = {"rope_theta": reader.number("freq_base", BASE)}
    if turned != width:
        if not partial or int(width * (turned / width)) != turned:
            raise reader.refused("dimension_count", "does not fit the heads")
        found["partial_rotary_factor"] = turned / width
    if any(len(array) != turned // 2 for array in factors.values()):
        raise UnsupportedModel(f"its tensors {', '.join(factors)} do not fit the heads")
    return found | reader.scaling(factors, turned=turned, base=found["rope_theta"])


class _Rope:
    """The keys below `rope.` of one file."""

    def __init__(self, header: GgufHeader, *, width: int, length: int) -> None:
        self.header = header
        self.width = width
        self.length = length

    def scaling(self, factors: dict[str, Factors], *, turned: int, base: float) -> dict[str, Any]:
        kind = self.kind()
        if LONG in factors or SHORT in factors:
            return self.longrope(factors, kind)
        if FREQUENCIES in factors and kind != "none":
            raise self.refused("scaling.type", f"does not go with the tensor {FREQUENCIES}")
        if kind == "yarn":
            return self.yarn()
        self.neutral("scaling.attn_factor", "scaling.yarn_attn_factor")
        if kind == "linear":
            return {"rope_type": "linear", "factor": self.number("scaling.factor", 1.0)}
        if kind != "none":
            raise self.refused("scaling.type", "is not known")
        if FREQUENCIES in factors:
            return _per_frequency(factors[FREQUENCIES], turned, base, self.length)
        return {"rope_type": "default"}

    def kind(self) -> str:
        """Return the type of the scaling; a factor without a type means linear, as in llama.cpp."""
        factor = self.number("scaling.factor", 0.0)
        kind = self.header.metadata.get(self.key("scaling.type"), "linear" if factor else "none")
        return "none" if kind == "linear" and factor in (0.0, 1.0) else str(kind)

    def yarn(self) -> dict[str, Any]:
        # Files use these factors in different ways, so only their neutral value is accepted.
        self.neutral("scaling.attn_factor", "scaling.yarn_attn_factor", "scaling.yarn_ext_factor")
        for key in ("scaling.factor", "scaling.original_context_length"):
            if self.number(key, 0) <= 0:
                raise self.refused(key, "is missing")
        return {
            "rope_type": "yarn",
            "factor": self.number("scaling.factor", 0),
            "original_max_position_embeddings": int(
                self.number("scaling.original_context_length", 0)
            ),
            "beta_fast": self.number("scaling.yarn_beta_fast", 32.0),
            "beta_slow": self.number("scaling.yarn_beta_slow", 1.0),
        }

    def longrope(self, factors: dict[str, Factors], kind: str) -> dict[str, Any]:
        if not factors.keys() == {LONG, SHORT} or kind not in ("none", "longrope"):
            raise self.refused("scaling.type", f"goes with {LONG} and {SHORT} together, alone")
        original = int(self.number("scaling.original_context_length", 0))
        if original <= 0:
            raise self.refused("scaling.original_context_length", "is missing")
        self.neutral("scaling.yarn_attn_factor")
        return {
            "rope_type": "longrope",
            "long_factor": factors[LONG].tolist(),
            "short_factor": factors[SHORT].tolist(),
            "original_max_position_embeddings": original,
            "attention_factor": self.number("scaling.attn_factor", 1.0),
        }

    def neutral(self, *keys: str) -> None:
        for key in keys:
            if self.number(key, 1.0) != 1.0:
                raise self.refused(key, "cannot be converted")

    def number(self, key: str, default: float) -> float:
        value = self.header.metadata.get(self.key(key), default)
        if isinstance(value, float):
            return float(str(np.float32(value)))
        if not isinstance(value, int) or value < 0:
            raise self.refused(key, "is no number")
        return value

    def key(self, name: str) -> str:
        return f"{self.header.architecture}.rope.{name}"

    def refused(self, key: str, why: str) -> UnsupportedModel:
        name = self.key(key)
        return UnsupportedModel(f"its key {name} = {self.header.metadata.get(name)!r} {why}")


def _per_frequency(factors: Factors, turned: int, base: float, length: int) -> dict[str, Any]:
    """Return the scaling that divides each frequency by its own factor."""
    largest = float(factors.max())
    if largest == float(factors.min()) == 1.0:
        return {"rope_type": "default"}
    if np.allclose(factors, _llama3(largest, turned, base), rtol=TOLERANCE, atol=0):
        return {"rope_type": "llama3", "factor": largest, **LLAMA3}
    values = factors.tolist()
    return {
        "rope_type": "longrope",
        "long_factor": values,
        "short_factor": values,
        "original_max_position_embeddings": length,  # so the short factors are always used
        "attention_factor": 1.0,
    }


def _llama3(factor: float, turned: int, base: float) -> npt.NDArray[np.float64]:
    """Return the numbers by which Llama 3 divides its rotary frequencies."""
    low, high, original = LLAMA3.values()
    turns = original * base ** -(np.arange(0, turned, 2) / turned) / (2 * math.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)
