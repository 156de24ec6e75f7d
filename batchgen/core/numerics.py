"""The arithmetic that rows were computed with.

Engines whose arithmetic differs may answer the same prompt differently.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

ENDPOINT = "endpoint"  # the device of rows that another server computed
#: {name of the kernels in the engine: name for a person}
KERNELS = {"cpu": "compiled kernels", "triton": "Triton kernels", "reference": "plain torch"}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Numerics:
    """The device, the number types and the kernels that an engine computes with."""

    device: str  # kind of device: cpu, cuda; or ENDPOINT, of which the rest is not known
    dtype: str  # compute type, torch's name
    quantize: str = "none"  # the type that weights were rounded to: none, int8
    # the attention kernels, a key of KERNELS; empty in earlier versions; the server of an endpoint
    kernels: str = ""

    def __str__(self) -> str:
        if self.device == ENDPOINT:
            return f"an endpoint ({self.kernels}), which may answer otherwise the next time"
        weights = "" if self.quantize == "none" else f" with {self.quantize} weights"
        kernels = f" by {kernels_named(self.kernels)}" if self.kernels else ""
        return f"{self.dtype}{weights} on {self.device}{kernels}"


def kernels_named(name: str) -> str:
    """Return the name for a person of the kernels that an engine calls `name`."""
    return KERNELS.get(name, name)


def merge_numerics(*several: Iterable[Numerics]) -> tuple[Numerics, ...]:
    """Return each numerics once, sorted, so that equal rows give equal bytes."""
    return tuple(sorted({one for numerics in several for one in numerics}))


def encode_numerics(numerics: Iterable[Numerics]) -> str:
    """Return numerics as JSON text."""
    return msgspec.json.encode(list(numerics)).decode()


def decode_numerics(text: str | None) -> tuple[Numerics, ...]:
    """Return the numerics that `encode_numerics` wrote; () if `text` is None or unreadable."""
    try:
        return msgspec.json.decode(text or "[]", type=tuple[Numerics, ...])
    except msgspec.DecodeError:
        return ()
