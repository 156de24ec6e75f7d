"""batchgen: a prompt file in, a Parquet dataset out.

import batchgen

dataset = batchgen.run("prompts.jsonl", "out", model="smollm2-135m", temperature=0)
"""

from __future__ import annotations

import importlib
import typing

__version__ = "0.1.0"

__all__ = ["AsyncClient", "Client", "Dataset", "__version__", "run"]

#: {name: its module}, imported on first use, because these modules import all others.
_LATE = {
    "AsyncClient": "batchgen.client.async_client",
    "Client": "batchgen.client.client",
    "Dataset": "batchgen.library.dataset",
    "run": "batchgen.library.run",
}

if typing.TYPE_CHECKING:
    from batchgen.client.async_client import AsyncClient
    from batchgen.client.client import Client
    from batchgen.library.dataset import Dataset
    from batchgen.library.run import run
else:

    def __getattr__(name: str) -> object:
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_LATE[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
