"""What operators see of running processes: metrics for Prometheus, traces for OpenTelemetry."""

from __future__ import annotations
