"""How far a long piece of work is: one line that moves on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, TextIO

_BAR_CHARS: Final = 28
_TTY_EVERY_S: Final = 0.1
_LOG_EVERY_S: Final = 5.0


class ProgressLine:
    """Shows `done` of `total`; `now_s` tells the time. Call `end` at last."""

    def __init__(self, what: str, total: int, now_s: Callable[[], float], out: TextIO | None = None) -> None:
        self._what, self._total, self._now_s, self._out = what, total, now_s, out or sys.stderr
        self._is_tty = self._out.isatty()
        self._begun_s = self._shown_s = now_s()

    def show(self, done: int, note: str = "") -> None:
        """Draws, unless that was done a moment ago."""
        now_s = self._now_s()
        if now_s - self._shown_s >= (_TTY_EVERY_S if self._is_tty else _LOG_EVERY_S):
            self._shown_s = now_s
            self._draw(done, now_s - self._begun_s, note)

    def end(self, done: int) -> None:
        """Draws the last state and ends the line."""
        self._total = self._total or done
        self._draw(done, self._now_s() - self._begun_s, "")
        if self._is_tty:
            print(file=self._out)

    def _draw(self, done: int, elapsed_s: float, note: str) -> None:
        rate = done / elapsed_s if elapsed_s > 0.2 else 0.0
        if not self._total:  # nobody knows how much there is
            self._print(f"{self._what}  {done:,}  {rate:,.0f}/s  {elapsed_s:.0f} s  {note}")
            return
        share = min(done / self._total, 1.0)
        filled = round(share * _BAR_CHARS)
        bar = "█" * filled + "░" * (_BAR_CHARS - filled)
        count = f"{share:4.0%}  {done:,} of {self._total:,}"
        self._print(f"{self._what} {bar} {count}  {rate:,.0f}/s  {elapsed_s:.0f} s  {note}")

    def _print(self, text: str) -> None:
        if self._is_tty:
            print(f"\r{text.rstrip()}\x1b[K", end="", file=self._out, flush=True)
        else:
            print(text.rstrip(), file=self._out, flush=True)
