"""Keep what SQL knows of a job: records, parts, sums, and how one is found."""

from __future__ import annotations
