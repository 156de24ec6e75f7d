"""The configuration of an engine. Imports no torch: the worker's main process builds it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from batchgen.endpoints.config import EndpointConfig
from batchgen.errors import InvalidParameter
from batchgen.settings import EngineSettings

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """The configuration of one model on one device; `EngineSettings` explains the fields."""

    model_path: Path
    model_name: str
    device: str = "auto"
    dtype: str = "auto"
    quantize: Literal["none", "int8"] = "none"
    kv_memory: str = "0.5"
    block_size: int = 16
    max_batch_tokens: int = 2048
    max_num_seqs: int = 128
    prefix_caching: bool = True
    preemption: Literal["auto", "swap", "recompute"] = "auto"
    swap_memory: str = "0.25"
    kernels: Literal["auto", "reference", "cpu", "triton"] = "auto"
    cuda_graphs: bool = False
    threads: int = 0
    # The endpoint that answers instead of an engine of our own.
    endpoint: EndpointConfig | None = None

    @classmethod
    def from_settings(cls, settings: EngineSettings, *, path: Path, name: str) -> EngineConfig:
        """Return the config of model `name` in folder `path` under an operator's settings."""
        return cls(model_path=path, model_name=name, **settings.model_dump())

    def at_endpoint(self, endpoint: EndpointConfig) -> EngineConfig:
        """Return the config of a model that lies behind an endpoint."""
        return replace(self, endpoint=endpoint, max_num_seqs=endpoint.endpoint.max_concurrency)

    def halved(self, times: int) -> EngineConfig:
        """Return a config whose sequences and tokens per step are halved `times` times."""
        return replace(
            self,
            max_num_seqs=max(1, self.max_num_seqs >> times),
            max_batch_tokens=max(self.block_size, self.max_batch_tokens >> times),
        )


def memory_bytes(text: str, *, free: int) -> int:
    """Return the number of bytes that a `kv_memory` value means when `free` bytes are free.

    "2G" and "512M" are bytes; "0.5" is a share of the free memory. Raise InvalidParameter for
    anything else.
    """
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise InvalidParameter(f"{text!r} is no amount of memory. Write 2G, 512M or 0.5.")
    number, unit = float(match[1]), match[2].upper()
    if "." in match[1] and not unit:
        if not 0 < number <= 1:
            raise InvalidParameter(f"{text!r} is no share of the free memory. Write 0.5 or 2G.")
        return int(number * free)
    return int(number * UNITS[unit])
