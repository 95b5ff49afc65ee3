"""The real API on a free port, in a thread of the test."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from waiting import until

from cloud.api.entrance import prepared
from cloud.api.process import assemble
from cloud.api.serve import Server, bind
from cloud.config import Config
from cloud.live import Hub
from shared.batch import Batch
from shared.records import Receipt
from shared.wire import decode_receipt, encode_batch

PROTOBUF = {"content-type": "application/x-protobuf"}


@dataclass(frozen=True)
class Api:
    """A running API: its port, a client, its hub, and how to stop it early."""

    port: int
    client: httpx.Client
    hub: Hub
    stop: Callable[[], None]

    def send(self, batch: Batch) -> Receipt:
        """Uploads a Batch; its Receipt."""
        answer = self.client.post("/device/v1/batches", content=encode_batch(batch), headers=PROTOBUF)
        assert answer.status_code == 200, answer.text
        return decode_receipt(answer.content)

    def until_healthy(self) -> None:
        """Waits until uploads are taken."""
        until("the API is healthy", lambda: self.client.get("/health").status_code == 200)


@contextmanager
def running_api(config: Config) -> Iterator[Api]:
    """Serves `config` on 127.0.0.1 until the block ends, by the door that its API_HOST makes."""
    listener = bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    config, served = prepared(config)
    app, hub = assemble(config)
    server = Server(app, hub.close, served)
    trust = ssl.create_default_context(cafile=str(config.access.tls_dir / "ca.pem")) if served else True
    url = f"{'https' if served else 'http'}://127.0.0.1:{port}"
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        with httpx.Client(base_url=url, timeout=20, verify=trust) as client:
            yield Api(port, client, hub, server.stop)
    finally:
        server.stop()
        thread.join(15)
        assert not thread.is_alive(), "the API did not stop"


def json_batch(
    samples: list[dict[str, object]], device: str = "car-1", boot: int = 1, **more: object
) -> dict[str, object]:
    """A JSON upload of these samples; seq and mono_ns count up where a sample has none."""
    filled = [{"seq": i, "mono_ns": (i + 1) * 10**9, **sample} for i, sample in enumerate(samples)]
    return {"schema": 1, "device": device, "boot": f"{boot:016x}", "samples": filled, **more}
