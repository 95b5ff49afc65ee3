"""The real gateway in a thread of the test."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from waiting import until

from cloud.config import Config
from cloud.gateway_process import serve


@dataclass(frozen=True)
class RunningGateway:
    """Its metrics and health; `stop` ends it early."""

    port: int
    stop: Callable[[], None]

    def health(self) -> tuple[int, dict[str, Any]]:
        """(status, body) of /health."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def metric(self, name: str) -> float:
        """The value of a metric, summed over its labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name]
        assert values, f"{name} is no metric"
        return sum(values)

    def until_connected(self) -> None:
        """Waits until the broker is there."""
        until("the gateway is connected", lambda: self.metric("packtwin_gateway_connected") == 1.0)


@contextmanager
def running_gateway(config: Config) -> Iterator[RunningGateway]:
    """Serves `config`, whose gateway_metrics_port must be free, until the block ends."""
    stop, started = asyncio.Event(), threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        loops.append(asyncio.get_running_loop())
        started.set()
        await serve(config, stop)

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(10)

    def end() -> None:
        if thread.is_alive():
            loops[0].call_soon_threadsafe(stop.set)
        thread.join(20)
        assert not thread.is_alive(), "the gateway did not stop"

    gateway = RunningGateway(config.gateway_metrics_port, end)
    try:
        until("the gateway serves its metrics", lambda: _answers(gateway))
        yield gateway
    finally:
        end()


def _answers(gateway: RunningGateway) -> bool:
    try:
        return bool(gateway.health())
    except OSError:
        return False
