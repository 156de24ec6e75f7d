"""`batchgen.run` and `batchgen.Dataset`: a run in a folder; loaded when first named."""

from __future__ import annotations
