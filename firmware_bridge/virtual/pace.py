"""When what is said again and again is due. Pure."""

from __future__ import annotations


def due_after(due_s: float, now_s: float, period_s: float) -> float:
    """When it is due next, after it was due at `due_s` and is said now: what was missed is not made good."""
    return due_s + period_s if due_s + period_s > now_s else now_s + period_s
