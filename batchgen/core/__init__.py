"""The words that all others use: rows, parameters, states, engine statistics."""

from __future__ import annotations
