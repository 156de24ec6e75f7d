"""Errors of rows that the engine began to compute. No torch: the fake engine uses them too."""

from __future__ import annotations

from batchgen.core.rows import RowError

INVALID_LOGITS = RowError(
    code="invalid_logits",
    message="The model's output for this row is not a number (NaN or infinity).",
)
NO_TOKEN = RowError(
    code="no_token_allowed",
    message="No token may follow: the row's grammar, allowed_token_ids and logit_bias exclude all.",
)
