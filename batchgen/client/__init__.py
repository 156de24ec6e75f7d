"""The Python client of a batchgen server: `batchgen.Client` and `batchgen.AsyncClient`."""

from __future__ import annotations
