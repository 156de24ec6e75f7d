"""The functions of the C++ file with their types."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_float, c_int32, c_int64, c_void_p
from functools import cache

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


WEIGHTS = (
    *("input_norm", "qkv", "qkv_bias", "query_norm", "key_norm", "o", "o_bias"),
    *("mlp_norm", "gate_up", "gate_up_bias", "down", "down_bias"),
)


class Decoder(Structure):
    """The weights and sizes of one decoder layer; mirrors `BatchgenDecoder`."""

    _fields_ = (
        *((name, c_void_p) for name in WEIGHTS),
        *((name, c_int64) for name in ("hidden", "inner")),
        *((name, c_int32) for name in ("query_heads", "kv_heads", "key_width", "value_width")),
        *((f"{name}_epsilon", c_float) for name in ("input", "query", "key", "mlp")),
    )


# A strided tensor: its address, and the steps of its first two axes in elements.
STRIDED = (c_void_p, c_int64, c_int64)
SIGNATURES = {
    "new": (c_int64, c_int32, c_int32, c_void_p, c_void_p, c_void_p),
    "free": (c_void_p,),
    "plan": (c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_void_p, c_int32),
    "write": (c_void_p, POINTER(Layer), c_void_p, *STRIDED, *STRIDED, c_int32),
    "attend": (c_void_p, POINTER(Layer), c_void_p, *STRIDED, c_void_p, c_int32),
    "copy": (c_void_p, c_int64, c_int64, c_void_p, c_int32),
    "pack": (c_void_p, c_int64, c_int64, c_int64, c_void_p, c_int32),
    "linear": (c_void_p, c_int64, c_int64, *[c_void_p] * 3, c_int64, c_int64, c_int32),
    "before": (POINTER(Decoder), c_int64, *[c_void_p] * 3, c_int64, c_void_p, c_void_p, c_int32),
    "after": (POINTER(Decoder), c_int64, *[c_void_p] * 3, c_int32),
}


@cache
def load() -> ctypes.CDLL | None:
    """Return the typed library, or None where there is none (see `build.load`)."""
    library = build.load()
    if library is not None:
        for name, arguments in SIGNATURES.items():
            function = library[f"batchgen_{name}"]
            function.argtypes = arguments
            function.restype = c_void_p if name == "new" else None
            setattr(library, name, function)
    return library
