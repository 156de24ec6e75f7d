"""Options of a batch that OpenAI does not have: the object `batchgen` of a create."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import orjson

from batchgen.errors import InvalidParameter
from batchgen.inputs.survey import OnInvalid


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchOptions:
    """The options of one batch. Times are text for `calendar.times`, as the caller wrote them."""

    # registry name; None is the model that the first line names
    model: str | None = None
    # decoding parameters of every line that does not set them
    params: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    # a higher number goes first
    priority: int = 0
    not_before: str | None = None
    # hours of the day, such as 22:00-06:00 Europe/Berlin
    window: str | None = None
    # instead of the end of completion_window
    deadline: str | None = None
    on_invalid: str = "refuse"

    @property
    def policy(self) -> OnInvalid:
        """The rule for a file with bad lines; raises InvalidParameter if it is unknown."""
        word = self.on_invalid.replace("_", "-")
        if word not in list(OnInvalid):
            raise InvalidParameter(
                f"'on_invalid' must be refuse or row_error, not {self.on_invalid!r}.",
                param="batchgen.on_invalid",
            )
        return OnInvalid(word)

    def encode(self) -> str:
        """Return the options as JSON text; equal options give equal text."""
        return orjson.dumps(asdict(self), option=orjson.OPT_SORT_KEYS).decode()

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the options of such a text."""
        return cls(**orjson.loads(text))
