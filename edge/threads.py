"""What blocks, beside the event loop: each in a thread that nothing else waits for.

A thread of the loop's own pool would not do: whoever blocks there long enough, a few brokers that never answer, takes
the last one from those that store.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from edge.outbox.records import OutboxError

log = logging.getLogger(__name__)

_STOP_S: Final = 3.0


async def in_daemon(
    name: str,
    work: Callable[[threading.Event], None],
    stop_s: float = _STOP_S,
    *,
    each_s: float | None = None,
    waits: Callable[[], None] = lambda: None,
) -> None:
    """Runs blocking `work` in a daemon thread until cancelled; then its event is set and it has `stop_s` to end.

    each_s: so often it is called that this still `waits`; None = never.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    stopping = threading.Event()

    def finish(error: BaseException | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def body() -> None:
        error: BaseException | None = None
        try:
            work(stopping)
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=body, name=name, daemon=True).start()
    try:
        while not (await asyncio.wait([done], timeout=each_s))[0]:
            waits()
    except asyncio.CancelledError:
        stopping.set()
        await asyncio.wait([done], timeout=stop_s)
        raise
    done.result()


class Storing:
    """The one thread that writes to the outbox. problem: why it cannot store now; None = it can."""

    def __init__(self) -> None:
        self.problem: str | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")

    async def run(self, work: Callable[[], object]) -> bool:
        """Runs work on the outbox; what that cannot store it has counted, here it is said once."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except OutboxError as error:
            if self.problem is None:
                log.error("the outbox cannot store: %s", error)
            self.problem = str(error)
            return False
        if self.problem is not None:
            log.info("the outbox stores again")
        self.problem = None
        return True

    def close(self) -> None:
        """Waits for what is being stored."""
        self._thread.shutdown(wait=True)
