"""Shows running processes to operators: metrics for Prometheus, traces for OpenTelemetry."""

from __future__ import annotations
