"""What was on a serial line around an event, replayed: the very Samples that the agent gave, of the same pack."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from fakes.flight import OFFSET_NS, told
from fakes.toy_language import TOY, message, reply

from edge.assemble import readable
from edge.capture.command import _amount
from edge.capture.exported import beside, state_beside
from edge.capture.recorder import Recorder
from edge.capture.replay import capture_samples
from edge.capture.store import Meta
from edge.config import RecorderConfig
from edge.config_sources import SerialConfig, SourceConfig
from edge.intake_parts import PartIntake
from edge.lane import Lane
from edge.mapping import Mapping, load_mapping
from edge.outbox.records import Measured
from edge.sources.ear import Asking
from edge.sources.serial_line import Line
from shared.errors import PacktwinError

MS = 1_000_000
S = 1000 * MS
MAPPING = 'protocol = "toy"\n[fields]\npack_v = { from = "pack_v" }\ncurrent_a = { from = "current_a" }\n'


TWO = [Asking.of(TOY, None, address, 0.5) for address in (1, 2)]


class Wire:
    """Takes the place of the port: packs that answer late, badly, twice or not at all, by a seed."""

    is_open = True

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.coming: list[tuple[int, bytes]] = []
        self.now = 0

    def open(self) -> None: ...

    def close(self) -> None: ...

    def write(self, data: bytes) -> None:
        values = {"pack_v": self.chance.randrange(30, 90), "current_a": self.chance.randrange(200), "extra.model": 1}
        answer = reply(data, values, data[1])
        kind = self.chance.random()
        if kind < 0.1:
            return
        if kind < 0.2:
            answer = answer[:-1] + b"\0"
        elif kind < 0.3:
            answer = data + answer
        elif kind < 0.4:
            answer += message(0, data[2] | 0x80, 99)
        cut = self.chance.randrange(len(answer))
        at = self.now + self.chance.choice((30, 60, 480, 700)) * MS
        self.coming += [(at, answer[:cut]), (at + self.chance.randrange(250) * MS, answer[cut:])]

    def read(self, now_ns: int) -> bytes:
        self.now = now_ns
        data = b"".join(data for at, data in self.coming if at <= now_ns)
        self.coming = [one for one in self.coming if one[0] > now_ns]
        return data


class Overheard(Wire):
    """Packs that another one asks, and never us."""

    def read(self, now_ns: int) -> bytes:
        if self.chance.random() < 0.2:
            address = self.chance.randrange(3)
            self.coming.append((now_ns, message(address, 0x81, 40 + 10 * address + self.chance.randrange(9))))
        return super().read(now_ns)


class Voyage:
    """Packs on a line with a recorder; `given` are all Samples of each, in order."""

    def __init__(self, folder: Path, mapping: Mapping, wire: Wire, packs: list[Asking] = TWO) -> None:
        self.folder, self.mapping, self.now = folder, mapping, 1000 * S + 777
        line = Line("/dev/ttyUSB0", TOY, None, packs)
        line._port = wire  # type: ignore[assignment]
        self.lanes = [
            Lane(_source(f"P-{at}"), PartIntake(seat, mapping), mapping, 1.0) for at, seat in enumerate(line.seats)
        ]
        self.recorder = Recorder(
            RecorderConfig(before_s=6, after_s=3), folder / "cold", None,
            now=lambda: self.now, offset_ns=lambda: OFFSET_NS, dating_ns=lambda: OFFSET_NS,
        )  # fmt: skip
        self.given: dict[str, list[Measured]] = {"P-0": [], "P-1": []}
        for lane in self.lanes:
            lane.record(self.recorder, "box")
            lane.intake.open()

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            for _ in range(50):
                self.now += 20 * MS
                for lane in self.lanes:
                    lane.tick(self.now)
            for lane in self.lanes:
                mono_ns = self.now // MS * MS
                if (sample := lane.sample(mono_ns, mono_ns + OFFSET_NS // MS * MS)) is not None:
                    self.given[lane.config.pack_id].append(sample)
            self.recorder.step()

    def kept(self) -> list[Meta]:
        return self.recorder.store.all()

    def exported(self, meta: Meta) -> Path:
        log = self.folder / f"{meta.id}.log"
        for name, path in (("log", log), ("state", beside(log, "state")), ("serial", beside(log, "serial"))):
            path.write_bytes(b"".join(self.recorder.store.text(meta, name)))
        return log

    def replayed(self, meta: Meta) -> list[dict[str, Any]]:
        log = self.exported(meta)
        state = state_beside(log)
        assert state is not None
        return told(capture_samples(log, state, self.mapping, state.pack_id))


def _source(pack_id: str) -> SourceConfig:
    return SourceConfig(
        pack_id=pack_id, interface="serial", channel="/dev/ttyUSB0", bitrate=0, tty_baudrate=0, listen_only=False,
        mapping_path=Path("m"), serial=SerialConfig(),
    )  # fmt: skip


@pytest.fixture
def mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping:
    monkeypatch.setattr("edge.mapping_protocol.protocol", lambda name: TOY)
    (tmp_path / "t.toml").write_text(MAPPING)
    return load_mapping(tmp_path / "t.toml")


@pytest.mark.parametrize("seed", range(6))
def test_a_replay_gives_the_samples_of_the_agent_for_each_pack_on_the_line(
    tmp_path: Path, mapping: Mapping, seed: int
) -> None:
    voyage = Voyage(tmp_path, mapping, Wire(seed))
    voyage.run(14)
    voyage.recorder.trigger(None, "what was that")
    voyage.run(6)
    kept = voyage.kept()
    assert {meta.pack_id for meta in kept} == {"P-0", "P-1"}
    for meta in kept:
        replayed = voyage.replayed(meta)
        first, last = replayed[0]["mono_ns"], replayed[-1]["mono_ns"]
        given = [dict(readable(one)) for one in voyage.given[meta.pack_id] if first <= one.mono_ns <= last]
        assert replayed == given and len(replayed) == meta.samples >= 8
        assert meta.frames == 0 and meta.chunks > 20 and _amount(meta) == f"{meta.chunks} chunks"
        assert len({one["pack_v"] for one in replayed}) > 2  # it is alive


@pytest.mark.parametrize("polls", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_replay_knows_which_of_the_packs_a_source_without_an_address_has_heard(
    tmp_path: Path, mapping: Mapping, seed: int, polls: bool
) -> None:
    """It is known from before the capture begins."""
    packs = [Asking.of(TOY, None, None, 0.5, polls=polls)]
    voyage = Voyage(tmp_path, mapping, Overheard(seed), packs)
    voyage.run(14)
    voyage.recorder.trigger(None, "what was that")
    voyage.run(6)
    (meta,) = voyage.kept()
    replayed = voyage.replayed(meta)
    first, last = replayed[0]["mono_ns"], replayed[-1]["mono_ns"]
    given = [dict(readable(one)) for one in voyage.given["P-0"] if first <= one.mono_ns <= last]
    assert replayed == given and len(replayed) >= 8 and len({one["pack_v"] for one in replayed}) > 2


def test_files_that_do_not_belong_together_are_told(tmp_path: Path, mapping: Mapping) -> None:
    voyage = Voyage(tmp_path, mapping, Wire(1))
    voyage.run(3)
    voyage.recorder.trigger("P-0", None)
    voyage.run(5)
    (meta,) = voyage.kept()
    log = voyage.exported(meta)
    serial = beside(log, "serial")
    lines = serial.read_text().splitlines()
    assert json.loads(lines[0]).keys() == {"t_ns", "mono_ns", "sent", "hex"}
    state = state_beside(log)
    assert state is not None
    serial.write_text("\n".join(lines[:-1]))
    with pytest.raises(PacktwinError, match=rf"has {len(lines) - 1} chunks, .* speaks of {len(lines)}"):
        list(capture_samples(log, state, mapping, "P-0"))
    serial.write_text("{}\n")
    with pytest.raises(PacktwinError, match="line 1 is no chunk"):
        list(capture_samples(log, state, mapping, "P-0"))
