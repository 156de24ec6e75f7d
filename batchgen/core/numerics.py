"""How rows were computed: engines that differ in it may answer the same prompt otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

#: {what an engine calls its kernels: what a person does}
KERNELS = {"cpu": "compiled kernels", "triton": "Triton kernels", "reference": "plain torch"}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Numerics:
    """The numbers an engine computes with, and where."""

    device: str  # kind of device: cpu, cuda
    dtype: str  # compute type, torch's name
    quantize: str = "none"  # what the weights were rounded to
    kernels: str = ""  # what computed attention, a key of KERNELS; empty in earlier versions

    def __str__(self) -> str:
        weights = "" if self.quantize == "none" else f" with {self.quantize} weights"
        kernels = f" by {kernels_named(self.kernels)}" if self.kernels else ""
        return f"{self.dtype}{weights} on {self.device}{kernels}"


def kernels_named(name: str) -> str:
    """Return what a person calls the kernels that an engine calls `name`."""
    return KERNELS.get(name, name)


def merge_numerics(*several: Iterable[Numerics]) -> tuple[Numerics, ...]:
    """Return each of several, once and in order, so that equal rows give equal bytes."""
    return tuple(sorted({one for numerics in several for one in numerics}))


def encode_numerics(numerics: Iterable[Numerics]) -> str:
    """Return numerics as JSON text."""
    return msgspec.json.encode(list(numerics)).decode()


def decode_numerics(text: str | None) -> tuple[Numerics, ...]:
    """Return what `encode_numerics` wrote; nothing where it is missing or unreadable."""
    try:
        return msgspec.json.decode(text or "[]", type=tuple[Numerics, ...])
    except msgspec.DecodeError:
        return ()
