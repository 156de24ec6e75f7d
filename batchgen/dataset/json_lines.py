"""Escape all characters that may end a line, for JSON Lines.

JSON always escapes the control characters below U+0020. Three more characters end a line for
`str.splitlines`, and so for `iter_lines` of httpx, with which clients read batch output.
"""

from __future__ import annotations

from typing import Final

# JSON allows them only in strings, where an escape means the same.
_SEPARATORS: Final = {
    separator.encode(): rb"\u%04x" % ord(separator) for separator in ("\u0085", "\u2028", "\u2029")
}


def escape_line_ends(text: bytes) -> bytes:
    """Return the JSON text (UTF-8) with every character escaped that might end a line."""
    for separator, escaped in _SEPARATORS.items():
        text = text.replace(separator, escaped)
    return text
