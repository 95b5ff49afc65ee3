"""The starts of the agent that the outbox still has to do with: the running one, and those of which something is left.

Not locked: the Outbox holds its own lock around every call.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Final

from edge.books import Tally
from edge.outbox.note import NoteFile
from edge.outbox.recovery import Opened
from edge.outbox.store import Store
from edge.outbox.tables import Boot
from shared.records import new_boot

_FIRST_AHEAD: Final = 200
_AHEAD_MARGIN: Final = 1.2
_AHEAD_MORE: Final = 3


class Boots:
    """own: the running start's no. known: all starts by no, as they are now (the files may lag behind)."""

    def __init__(self, opened: Opened, cold_dir: Path, *, kernel: str, boot: int | None) -> None:
        self._hot, self._cold, self._kernel = opened.hot, opened.cold, kernel
        self._file = NoteFile(cold_dir)
        self.known = dict(opened.boots)
        one_file = opened.hot is opened.cold
        ahead = [known.ahead for known in self.known.values() if known.ahead and not known.replay]
        fresh = Boot(
            no=max(self.known, default=0) + 1,
            boot=new_boot() if boot is None else boot,
            kernel=kernel,
            replay=boot is not None,
            ahead=0 if boot is not None or one_file else (ahead or [_FIRST_AHEAD])[-1],
        )
        again = [known for known in self.known.values() if known.boot == boot]
        self.running = again[0] if again else fresh
        self.had = self._had(again[0]) if again else 0
        """Seqs below were stored in an earlier run of the same replay."""
        self._measured = False
        self.known[self.running.no] = self.running

    @property
    def _one_file(self) -> bool:
        return self._hot is self._cold

    def _had(self, own: Boot) -> int:
        top = max(own.safe_seq, self._cold.last_seqs().get(own.no, -1) + 1)
        return max(top, own.next_seq) if any(boot.no == own.no for boot in self._hot.boots()) else top

    def retire(self) -> None:
        """Forgets earlier starts of which nothing is left; of the others the cold file learns their exact end.

        For a transaction of the cold file.
        """
        in_rows, in_blocks = set(self._hot.row_boots()), set(self._cold.last_seqs())
        for no, boot in list(self.known.items()):
            if no == self.running.no or boot.replay:
                continue
            if no in in_rows or no in in_blocks:
                self.known[no] = replace(boot, ahead=0, open=False)
                self._cold.put_boot(self.cold_view(no))
            else:
                self._cold.drop_boot(no)
                del self.known[no]

    def retired(self) -> None:
        """Says the same to the hot file. For a transaction of the hot file."""
        for boot in self._hot.boots():
            if boot.no not in self.known:
                self._hot.drop_boot(boot.no)
        for boot in self.known.values():
            self._hot.put_boot(boot)

    def cold_view(self, no: int) -> Boot:
        """A start as the cold file shall know it: one that has rows in memory may lose them."""
        boot = self.known[no]
        return replace(boot, open=True) if not self._one_file and no in self._hot.row_boots() else boot

    def to_cold(self) -> None:
        """Tells the cold file what must be known of all starts after a power cut. In a cold transaction."""
        for no in self.known:
            self._cold.put_boot(self.cold_view(no))

    def note(self) -> None:
        """Notes what the cold file holds now; after a cold transaction."""
        boots = [replace(boot, next_seq=max(boot.safe_seq, 0)) for boot in map(self.cold_view, sorted(self.known))]
        self._file.write(boots, Tally() if self._one_file else self._hot.tally())

    def close(self) -> None:
        """Closes the note."""
        self._file.close()

    def expect(self, rate_hz: float, flush_s: float) -> bool:
        """Whether the note has to be renewed: a power cut may cost more, or far less, than it says."""
        if self._one_file or self.running.replay:
            return False
        ahead = math.ceil(rate_hz * flush_s * _AHEAD_MARGIN) + _AHEAD_MORE
        noted = self.running.ahead
        if self._measured and noted // 4 <= ahead <= noted:
            return False
        self._measured = True
        self._set(replace(self.running, ahead=ahead))
        return ahead != noted

    def flushed(self, no: int, top_seq: int) -> None:
        """All up to top_seq is settled or in a block."""
        self._set(replace(self.known[no], safe_seq=max(self.known[no].safe_seq, top_seq + 1)))

    def end(self, next_seq: int) -> None:
        """The running start is over and all of it is settled or in a block."""
        self._set(replace(self.running, next_seq=next_seq, safe_seq=next_seq, ahead=0, open=False))

    def waits(self, no: int) -> bool:
        """Whether records of a start that have no t_ns may still get one."""
        return self.known[no].kernel == self._kernel and self.known[no].offset_ns is None

    def waiting(self) -> bool:
        """Whether `date` has something to do."""
        return any(self.waits(no) for no in self.known)

    def date(self, offset_ns: int) -> None:
        """Dates all starts of this kernel boot that are not dated yet, in both files."""
        with self._hot.transaction():
            self._hot.date(self._kernel, offset_ns)
        if not self._one_file and self._cold.any_undated():
            with self._cold.transaction():
                self._cold.date(self._kernel, offset_ns)
        for no in [no for no in self.known if self.waits(no)]:
            self._set(replace(self.known[no], offset_ns=offset_ns))

    def mended(self, cold: Store, one_file: bool) -> None:
        """The cold file was replaced by what could be read of it."""
        self._hot, self._cold = cold if one_file else self._hot, cold

    def _set(self, boot: Boot) -> None:
        self.known[boot.no] = boot
        if boot.no == self.running.no:
            self.running = boot
