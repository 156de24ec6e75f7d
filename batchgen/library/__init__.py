"""Python's door: `batchgen.run` and `batchgen.Dataset`; `batchgen` loads them when first named."""

from __future__ import annotations
