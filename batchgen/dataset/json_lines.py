"""JSON Lines that stay lines, whoever splits them.

JSON escapes the control characters below U+0020 in any case. Three more end a line for
`str.splitlines`, and so for `iter_lines` of httpx, with which clients read batch output.
"""

from __future__ import annotations

from typing import Final

# In JSON they can only stand in a string, where an escape means the same.
_SEPARATORS: Final = {
    separator.encode(): rb"\u%04x" % ord(separator) for separator in ("\u0085", "\u2028", "\u2029")
}


def escape_line_ends(text: bytes) -> bytes:
    """Return JSON text, UTF-8, in which no string holds a character that might end a line."""
    for separator, escaped in _SEPARATORS.items():
        text = text.replace(separator, escaped)
    return text
