"""A pseudo terminal on which virtual BMSs answer, as they would behind a USB adapter."""

from __future__ import annotations

import contextlib
import os
import time
import tty
from pathlib import Path
from typing import Final

from firmware_bridge.virtual.responder import Responder
from shared.errors import ConfigError, PacktwinError

_QUIET_S: Final = 0.05
_QUEUE_BYTES: Final = 64 * 1024


class PtyLine:
    """The line of a Responder. `where`: the port to open; link: also a link to it by this name."""

    def __init__(self, responder: Responder, link: Path | None = None) -> None:
        self._responder = responder
        self._link = link
        self._queue = bytearray()
        self._heard_s = 0.0
        self.dropped = 0
        try:
            # The slave side is kept open here too, so that the settings stay and a leaving reader is no hang-up.
            self._master, self._slave = os.openpty()
            tty.setraw(self._slave)
            os.set_blocking(self._master, False)
            self.where = os.ttyname(self._slave)
        except OSError as error:
            raise PacktwinError(f"cannot make a serial port ({error.strerror}): free some") from error
        if link is not None:
            self._make_link(link)

    def _make_link(self, link: Path) -> None:
        try:
            fresh = link.with_name(f".{link.name}.new")
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(self.where)
            fresh.replace(link)
        except OSError as error:
            raise ConfigError(f"cannot make the link {link} ({error.strerror}): name another") from error

    def fileno(self) -> int:
        """What to watch for `serve`."""
        return self._master

    @property
    def wants_to_write(self) -> bool:
        """Replies wait for the reader."""
        return bool(self._queue)

    def serve(self) -> None:
        """Reads what was asked and writes what the terminal takes."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._master, 4096)
            self._heard_s = time.monotonic()
            self._say(self._responder.feed(data))
        self._flush()

    def tick(self, now_s: float) -> None:
        """Something that came is no request of ours, when nothing has followed it for a while."""
        if self._responder.waits and now_s - self._heard_s > _QUIET_S:
            self._say(self._responder.quiet())

    def close(self) -> None:
        """Removes the link, if it still is this line's, and the terminal."""
        if self._link is not None:
            with contextlib.suppress(OSError):
                if self._link.readlink() == Path(self.where):
                    self._link.unlink()
        os.close(self._master)
        os.close(self._slave)

    def _say(self, replies: list[bytes]) -> None:
        for reply in replies:
            if len(self._queue) + len(reply) > _QUEUE_BYTES:
                self.dropped += 1
            else:
                self._queue += reply
        self._flush()

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._queue:
                del self._queue[: os.write(self._master, self._queue)]
