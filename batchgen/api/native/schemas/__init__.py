"""The JSON shapes of the native API, for its description and for tests of its answers."""

from __future__ import annotations
