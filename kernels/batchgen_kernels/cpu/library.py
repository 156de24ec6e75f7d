"""The functions of the C++ file and their argument types."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from functools import cache
from typing import Any, ClassVar

from batchgen_kernels.cpu import build

PANEL = 16  # outputs of one panel of packed weights


class Layer(Structure):
    """One layer's attention; mirrors `BatchgenLayer`."""

    _fields_ = (
        ("keys", c_int64),
        ("values", c_int64),
        ("key_width", c_int32),
        ("value_width", c_int32),
        ("kind", c_int32),
        ("scale", c_float),
        ("softcap", c_float),
        ("sinks", c_void_p),
    )


class Weights(Structure):
    """The panels of one linear layer's weights; mirrors `BatchgenWeights`."""

    _fields_: ClassVar[Any] = (("panels", c_void_p), ("scales", c_void_p))


class Decoder(Structure):
    """The weights and sizes of one decoder layer; mirrors `BatchgenDecoder`."""

    _fields_: ClassVar[Any] = (
        ("qkv", Weights),
        ("o", Weights),
        ("gate_up", Weights),
        ("down", Weights),
        ("input_norm", c_void_p),
        ("qkv_bias", c_void_p),
        ("query_norm", c_void_p),
        ("key_norm", c_void_p),
        ("o_bias", c_void_p),
        ("mlp_norm", c_void_p),
        ("gate_up_bias", c_void_p),
        ("down_bias", c_void_p),
        ("hidden", c_int64),
        ("inner", c_int64),
        ("query_heads", c_int32),
        ("kv_heads", c_int32),
        ("key_width", c_int32),
        ("value_width", c_int32),
        ("input_epsilon", c_float),
        ("query_epsilon", c_float),
        ("key_epsilon", c_float),
        ("mlp_epsilon", c_float),
    )


# A strided tensor: its address, and the steps of its first two axes in elements.
STRIDED = (c_void_p, c_int64, c_int64)
# A matrix: its address, its rows, and the step from one to the next in elements.
ROWS = (c_void_p, c_int64, c_int64)
SIGNATURES: dict[str, tuple[Any, ...]] = {
    "new": (c_int64, c_int32, c_int32, c_void_p, c_void_p, c_void_p),
    "free": (c_void_p,),
    "plan": (c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_int32),
    "write": (c_void_p, POINTER(Layer), c_void_p, *STRIDED, *STRIDED, c_int32),
    "attend": (c_void_p, POINTER(Layer), c_void_p, *STRIDED, c_void_p, c_int32),
    "copy": (c_void_p, c_int64, c_int64, c_void_p, c_int32),
    "pack": (c_void_p, c_int64, c_int64, c_int64, c_void_p, c_int32),
    "linear": (*ROWS, POINTER(Weights), c_void_p, c_void_p, c_int64, c_int64, c_int32),
    "before": (POINTER(Decoder), c_int64, *[c_void_p] * 3, c_int64, c_void_p, c_void_p, c_int32),
    "after": (POINTER(Decoder), c_int64, *[c_void_p] * 3, c_int32),
}


@cache
def load() -> ctypes.CDLL | None:
    """Return the library with argument types, None if it cannot be built (see `build.load`)."""
    library = build.load()
    if library is not None:
        for name, arguments in SIGNATURES.items():
            function = library[f"batchgen_{name}"]
            function.argtypes = arguments
            function.restype = c_void_p if name == "new" else None
            setattr(library, name, function)
    return library
