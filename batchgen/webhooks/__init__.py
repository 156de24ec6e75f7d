"""Webhooks: events of jobs and batches, kept in SQL until their receivers have them."""

from __future__ import annotations
