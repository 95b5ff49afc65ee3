"""A device, its repository and the server between them, with clocks that a test holds."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from fakes.image_server import ImageServer, serving
from fakes.tuf_repo import TufRepo

from edge.ota.fetch import Origin
from edge.ota.state import Told
from edge.ota.updates import Updates
from shared.bundle import OUTPUTS, Bundle, FeatureRange, Golden, Manifest, Output, build, model_id
from shared.errors import PacktwinError

DAY_NS = 86_400 * 10**9
T_NS = 20_500 * DAY_NS
SCHEMA = "0123456789abcdef"
HARDWARE = "cpu-onnx"


def plain_manifest(name: str, counter: int) -> Manifest:
    """A manifest that fits the device."""
    return Manifest(
        model_id=model_id(name, counter),
        counter=counter,
        feature_schema=SCHEMA,
        features=(FeatureRange("cycles", "1", 0.0, 5000.0),),
        outputs={output: Output(f"{output}.onnx", "cycles", "none") for output in OUTPUTS},
        chemistry=("nmc",),
        hardware=HARDWARE,
        data={"hash": "0" * 64, "licence": "none", "simulated": True},
    )


def plain_bundle(manifest: Manifest, size: int = 2000) -> bytes:
    """A bundle whose graphs are noise of `size` bytes each: for a probe that does not look into them."""
    chance = random.Random(manifest.model_id)
    golden = Golden(np.zeros((1, 1), np.float32), {name: np.ones(1, np.float32) for name in OUTPUTS})
    return build(manifest, {output.file: chance.randbytes(size) for output in manifest.outputs.values()}, golden)


def custom_of(manifest: Manifest) -> dict[str, Any]:
    """What the target repeats of it."""
    names = ("model_id", "counter", "feature_schema", "hardware")
    return {name: getattr(manifest, name) for name in names} | {"chemistry": list(manifest.chemistry)}


class World:
    """One repository, one server, one device. Times are the test's: mono_ns goes on by what `step` asks for."""

    def __init__(self, folder: Path, server: ImageServer) -> None:
        self.folder, self.server = folder, server
        self.repo = TufRepo(server.folder, T_NS)
        self.root: bytes | None = self.repo.root
        self.t_ns: int | None = T_NS
        self.mono_ns = 10**12
        self.told: list[Told] = []
        self.outbox_is_full = False
        self.probed: list[Path] = []
        self.probe: Callable[[Path, Bundle], None] = lambda path, bundle: None
        self.origin = Origin(url=server.url, token="secret", deadline_s=5.0)
        self.settings: dict[str, Any] = {"feature_schema": SCHEMA, "hardware": HARDWARE, "chemistry": ["nmc"]}
        self.updates = self.start()

    def start(self) -> Updates:
        """The device as after a start of its agent."""
        return Updates(
            self.folder / "models",
            root=self.root,
            origin=self.origin,
            now_t_ns=lambda: self.t_ns,
            probe=self._probe,
            report=self._report,
            mono_ns=lambda: self.mono_ns,
            **self.settings,
        )

    def restart(self) -> None:
        """Ends the agent and starts it again."""
        self.updates.close()
        self.updates = self.start()

    def publish(self, counter: int, name: str = "rul", *, size: int = 2000, **changes: Any) -> str:
        """Signs a bundle; changes: of its manifest. Returns its model_id."""
        manifest = replace(plain_manifest(name, counter), **changes)
        self.repo.add(f"{name}-{counter}.bundle", plain_bundle(manifest, size), custom_of(manifest))
        self.repo.publish()
        return f"{name}-{counter}"

    def run(self, desired: str | None, seconds: float = 30.0) -> None:
        """Steps until that much time has passed and nothing is to be done at once."""
        until_ns = self.mono_ns + int(seconds * 10**9)
        at_once = 0
        while at_once < 100:
            wait_s = self.updates.step(desired)
            self.mono_ns += int(wait_s * 10**9)
            at_once = 0 if wait_s else at_once + 1
            if wait_s and self.mono_ns >= until_ns:
                return
        raise AssertionError("it never rests")

    def install(self, counter: int, *, proven: bool = True) -> str:
        """Publishes a good bundle and lets it become what runs."""
        name = self.publish(counter)
        self.run(name)
        for _ in range(3 * proven):
            self.updates.good_answer()
        assert self.active == name, self.steps
        return name

    @property
    def active(self) -> str | None:
        """What runs; its file is whole."""
        active = self.updates.active
        if active is None:
            return None
        import hashlib

        assert hashlib.sha256(active.path.read_bytes()).hexdigest() == active.sha256
        return active.model_id

    @property
    def steps(self) -> list[str]:
        """What was reported, as `model_id step reason`."""
        return [" ".join(filter(None, (told.model_id, told.step, told.reason))) for told in self.told]

    def _probe(self, path: Path, bundle: Bundle) -> None:
        assert path.read_bytes()
        self.probed.append(path)
        self.probe(path, bundle)

    def _report(self, told: Told) -> None:
        if self.outbox_is_full:
            raise PacktwinError("the outbox is full")
        self.told.append(told)


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """A world that serves until the block is left."""
    server = ImageServer(folder / "image")
    with serving(server):
        made = World(folder, server)
        try:
            yield made
        finally:
            with suppress(OSError):
                made.updates.close()
