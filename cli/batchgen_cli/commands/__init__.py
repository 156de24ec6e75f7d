"""One module for each command; it holds `command`, and imports what is heavy when it runs."""

from __future__ import annotations
