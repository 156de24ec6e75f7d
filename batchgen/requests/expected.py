"""Expectations of a batch: the endpoint, and perhaps the model, that each of its lines must name.

A batch is created for one endpoint, as OpenAI's are. A line for another one is bad, wherever it is
read: when the batch is checked, in a worker, and when results are compared with the input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from batchgen.errors import InvalidParameter
from batchgen.requests.values.line_error import LineError, quoted

#: The parameter of a job that holds them: {"url": …, "model": …}.
EXPECTS: Final = "expects"


def without_expectations(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a job as its caller gave them."""
    return {name: value for name, value in params.items() if name != EXPECTS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The endpoint and the model that the lines of a job must name; None is any."""

    url: str | None = None
    # A line that names no model is for the job's model in any case.
    model: str | None = None

    @classmethod
    def read(cls, defaults: Mapping[str, Any]) -> Self:
        """Return the expectations among the parameters of a job; raise InvalidParameter."""
        found = defaults.get(EXPECTS, {})
        try:
            return cls(**found)
        except TypeError:
            raise InvalidParameter(
                "'expects' is set for the jobs of batches only.", param=EXPECTS
            ) from None

    def check(self, data: Mapping[str, Any], model: str | None) -> None:
        """Raise LineError if a line is for another endpoint, or names another model."""
        if self.url is not None and data.get("url") != self.url:
            raise LineError(
                "invalid_url", f"'url' must be {self.url}, the endpoint of the batch.", "url"
            )
        if self.model is not None and model not in (None, self.model):
            raise LineError(
                "mismatched_model",
                f"The batch is for the model {quoted(self.model)}: this line names "
                f"{quoted(model or '')}.",
                "model",
            )
