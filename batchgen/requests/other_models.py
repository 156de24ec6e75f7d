"""Count the lines that name another model than the one that answers them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from batchgen.requests.values.line_error import quoted

MAX_NAMES: Final = 100  # kept by name; lines with further names are only counted
SHOWN: Final = 3


@dataclass(slots=True)
class OtherModels:
    """Counts, for each other model, the lines of an input that name it."""

    lines: int = 0
    # lines by name
    names: dict[str, int] = field(default_factory=dict)

    def add(self, name: str) -> None:
        """Count one line."""
        self.lines += 1
        if name in self.names or len(self.names) < MAX_NAMES:
            self.names[name] = self.names.get(name, 0) + 1

    def notice(self, model: str) -> str | None:
        """Return one sentence that says which model answers instead, None if no line differs."""
        if not self.lines:
            return None
        often = sorted(self.names, key=lambda name: (-self.names[name], name))
        more = ", …" if len(often) > SHOWN else ""
        listed = ", ".join(f"{quoted(name)} {self.names[name]:,}" for name in often[:SHOWN])
        plural = "line names" if self.lines == 1 else "lines name"
        return f"{self.lines:,} {plural} another model ({listed}{more}); {model} answers them"
