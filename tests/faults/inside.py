"""Faults that need nnjax or JAX to be loaded: lanes that are not finite, and memory that is short."""

from __future__ import annotations

from typing import Any


def install(plan: dict[str, Any]) -> None:
    """Let this process suffer what `plan` says of lanes and memory."""
    if "lanes" in plan:
        from tests.faults import lanes

        lanes.install(plan["lanes"])
    if "memory" in plan:
        from tests.faults import memory

        memory.install(plan["memory"])
