"""A BMS over Bluetooth, read by aiobmsble (the extra `ble`, Python 3.12 and newer). Only readings are asked for.

Bluetooth lives in a thread with an event loop of its own; the lane takes what it has read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from edge.capture.recorder import Track
from edge.config_sources import SourceConfig
from edge.sources.ble_names import as_json, part_of
from edge.sources.source import SourceError, Untold
from firmware_bridge.protocol import Said
from shared.errors import ConfigError

_NEEDS: Final = (3, 12)
_SCAN_S: Final = 15.0
_CONNECT_S: Final = 30.0  # with the first reading; together with the scan less than the agent's patience
_READ_S: Final = 30.0
_LEAVE_S: Final = 30.0  # to disconnect; BlueZ gives up by itself before that
_STOP_S: Final = 5.0
_MOST_WAITING: Final = 1000
Reading = Mapping[str, Any]


def check_available() -> None:
    """ConfigError in one sentence where Bluetooth cannot be read here."""
    if sys.version_info < _NEEDS:
        raise ConfigError(
            f"Bluetooth needs Python {_NEEDS[0]}.{_NEEDS[1]} or newer, this is {sys.version.split()[0]}: install "
            "packtwin[edge,ble] with a newer one, or leave the source of type ble out"
        )
    try:
        import aiobmsble.utils  # noqa: F401
    except ImportError:
        raise ConfigError(
            "Bluetooth needs aiobmsble: install packtwin with the extra ble: packtwin[edge,ble]"
        ) from None


class BleSpeaker(Untold):
    """See Speaker. `open` finds the BMS and connects; a thread then reads it every `pace_s`."""

    def __init__(self, config: SourceConfig) -> None:
        super().__init__()
        assert config.ble is not None
        check_available()
        self.track: Track | None = None
        self.pace_s = config.ble.poll_s
        self.errors: Mapping[str, int] = {}
        self._address, self._bms, self._poll_s = config.channel, config.ble.bms, config.ble.poll_s
        self._came: deque[Reading] = deque(maxlen=_MOST_WAITING)
        self._said: list[tuple[int, Said]] = []
        self._session: _Session | None = None
        self._left: _Session | None = None

    def open(self) -> None:
        """See Speaker."""
        self.close()
        if self._left is not None and not self._left.has_ended(0):
            raise SourceError(f"{self._address} is still being disconnected from over Bluetooth")
        session = _Session(self._address, self._bms, self._poll_s, self._came.append)
        self._session = session
        if not session.is_read(_SCAN_S + _CONNECT_S):
            self.close()
            raise SourceError(session.problem or f"{self._address} does not answer over Bluetooth")

    def tick(self, mono_ns: int) -> None:
        """See Speaker."""
        while self._came:
            reading = self._came.popleft()
            if self.track is not None:
                self.track.chunk(mono_ns, json.dumps(as_json(reading)).encode(), sent=False)
            self._said.append((mono_ns, part_of(reading)))
        if self._session is None:
            raise SourceError(f"{self._address} is not connected")
        if self._session.problem is not None:
            raise SourceError(self._session.problem)

    def take(self) -> list[tuple[int, Said]]:
        """See Speaker."""
        said, self._said = self._said, []
        return said

    def snapshot(self) -> Any:
        """See Speaker."""
        return None

    def close(self) -> None:
        """See Speaker."""
        session, self._session = self._session, None
        if session is not None:
            session.stop()
            self._left = session


class _Session:
    """One connection, from finding the BMS until it has let go of it. `problem` is why it has ended, None = it has not.

    A disconnect is never cut short: a BMS that stays connected does not advertise, so nobody would find it again.
    """

    def __init__(self, address: str, bms: str, poll_s: float, came: Callable[[Reading], None]) -> None:
        self._address, self._bms, self._poll_s, self._came = address, bms, poll_s, came
        self.problem: str | None = None
        self._settled = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._is_leaving = False
        self._thread = threading.Thread(target=self._run, name=f"ble {address}", daemon=True)
        self._thread.start()

    def is_read(self, timeout_s: float) -> bool:
        """Waits until the BMS has been read once; whether it has."""
        return self._settled.wait(timeout_s) and self.problem is None

    def stop(self) -> None:
        """Disconnects; waits for that, but not for ever. Where there is a `problem` it has ended already."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                self._loop.call_soon_threadsafe(self._cancel)
        self.has_ended(_STOP_S)

    def has_ended(self, timeout_s: float) -> bool:
        """Whether it has let go of the BMS; waits so long for that."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _cancel(self) -> None:
        if self._task is not None and not self._is_leaving:
            self._task.cancel()

    def _run(self) -> None:
        problem = f"the connection to {self._address} has ended"
        try:
            self._task = self._loop.create_task(self._live())
            self._loop.run_until_complete(self._task)
        except asyncio.CancelledError:
            pass
        except SourceError as error:
            problem = str(error)
        except Exception as error:  # whatever Bluetooth raises: the lane tries again
            problem = f"{self._address} cannot be read over Bluetooth: {_plain(error)}"
        finally:
            self.problem = problem
            self._settled.set()
            self._loop.close()

    async def _live(self) -> None:
        from aiobmsble import BMSConfig

        device, kind = await self._found()
        bms = kind(ble_device=device, config=BMSConfig(keep_alive=True))
        try:
            while True:
                # Raw: what the BMS says, without what can be reckoned from it.
                self._came(await self._reading(bms))
                self._settled.set()
                await asyncio.sleep(self._poll_s)
        finally:
            self._is_leaving = True
            with contextlib.suppress(Exception):  # what went wrong before it is what is told
                async with asyncio.timeout(_LEAVE_S):
                    await bms.disconnect()

    async def _reading(self, bms: Any) -> Reading:
        timeout_s = _READ_S if self._settled.is_set() else _CONNECT_S
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                reading: Reading = await bms.async_update(raw=True)
        except TimeoutError:
            if limit.expired():  # else it is the library's own
                raise SourceError(
                    f"{self._address} is there but does not answer over Bluetooth within {timeout_s:g} s: is a phone "
                    "or another program connected to it?"
                ) from None
            raise
        return reading

    async def _found(self) -> tuple[Any, Any]:
        """(The device, aiobmsble's class for it). SourceError: there is none."""
        from aiobmsble.utils import bms_cls, bms_identify
        from bleak import BleakScanner

        wanted = self._address.casefold()
        told: list[Any] = []

        def is_it(device: Any, advertised: Any) -> bool:
            names = (device.address, device.name, advertised.local_name)
            is_wanted = wanted in [str(name).casefold().strip() for name in names if name]
            if is_wanted and not told:
                told.append(advertised)
            return is_wanted

        device = await BleakScanner.find_device_by_filter(is_it, timeout=_SCAN_S)
        if device is None:
            raise SourceError(
                f"{self._address} is not heard over Bluetooth: is it on, near, and not connected to a phone?"
            )
        if self._bms:
            kind = await bms_cls(self._bms)
            hint = f'bms = "{self._bms}" is none that aiobmsble knows'
        else:
            kind = await bms_identify(told[0], device.address)
            hint = 'aiobmsble does not know what it is: name its module with bms = "jbd_bms"'
        if kind is None:
            raise SourceError(f"{self._address}: {hint}")
        return device, kind


def _plain(error: Exception) -> str:
    return f"{type(error).__name__}{f' ({error})' if str(error) else ''}"
