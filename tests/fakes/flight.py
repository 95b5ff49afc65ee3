"""A lane without a bus, with a recorder and a clock that a test moves: what is said on the bus is up to the test."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.assemble import readable
from edge.capture.exported import beside, state_beside
from edge.capture.recorder import Recorder
from edge.capture.replay import capture_samples
from edge.capture.store import Meta
from edge.config import RecorderConfig
from edge.config_sources import SourceConfig
from edge.intake import FrameIntake
from edge.lane import Lane
from edge.mapping import load_mapping
from edge.outbox.records import Measured
from edge.sources.source import Listed
from firmware_bridge.frames import FrameBatch

S = 1_000_000_000
OFFSET_NS = 1_790_000_000 * S + 123_456_789
"""UTC - mono_ns; not in whole us, as of real clocks."""

DBC = """VERSION ""
NS_ :
BS_:
BU_: ECU
BO_ 256 Pack: 8 ECU
 SG_ V : 0|16@1+ (0.1,0) [0|600] "V" ECU
 SG_ I : 16|16@1- (0.1,0) [-3000|3000] "A" ECU
 SG_ State : 32|8@1+ (1,0) [0|0] "" ECU
 SG_ Hot : 48|1@1+ (1,0) [0|1] "" ECU
 SG_ Leak : 49|1@1+ (1,0) [0|1] "" ECU
BO_ 257 Cells: 5 ECU
 SG_ Group M : 0|8@1+ (1,0) [0|1] "" ECU
 SG_ C1 m0 : 8|16@1+ (0.001,0) [0|5] "V" ECU
 SG_ C2 m0 : 24|16@1+ (0.001,0) [0|5] "V" ECU
 SG_ C3 m1 : 8|16@1+ (0.001,0) [0|5] "V" ECU
 SG_ C4 m1 : 24|16@1+ (0.001,0) [0|5] "V" ECU
"""
MAPPING = """dbc = "t.dbc"
[fields]
pack_v = { from = "Pack.V" }
current_a = { from = "Pack.I", scale = -1.0 }
state = { from = "Pack.State", values = { 1 = "park", 2 = "drive" } }
cell_v = { from = "Cells.C{}", count = 4, max_age_s = 3.0 }
[alarms]
mos_over_temp = "Pack.Hot"
"insulation:warning" = "Pack.Leak"
"""
Frame = tuple[int, int, bytes]


def pack(t_ns: int, volts: float = 391.4, amps: float = -2.3, state: int = 2, *, alarm: int = 0) -> Frame:
    """alarm: 1 = hot, 2 = leak, 3 = both."""
    raw = round(volts * 10).to_bytes(2, "little") + round(-amps * 10).to_bytes(2, "little", signed=True)
    return t_ns, 256, raw + bytes([state, 0, alarm, 0])


def cells(t_ns: int, group: int, *volts: float) -> Frame:
    """Two cells of a group."""
    return t_ns, 257, bytes([group]) + b"".join(round(v * 1000).to_bytes(2, "little") for v in volts)


class Wire(Listed):
    """The source: a poll takes what was said before."""

    def __init__(self) -> None:
        super().__init__("can0")
        self.said: deque[Frame] = deque()

    def open(self) -> None: ...

    def close(self) -> None: ...

    def _received(self, t_ns: int) -> FrameBatch:
        frames = list(self.said)
        self.said.clear()
        return FrameBatch.of("can0", frames)


class Flight:
    """One pack. `tick` reads, `measure` takes a Sample; `given` are all Samples, in order."""

    def __init__(self, folder: Path, config: RecorderConfig | None = None, *, tmpfs: bool = True) -> None:
        (folder / "t.dbc").write_text(DBC)
        (folder / "m.toml").write_text(MAPPING)
        self.folder, self.mono_ns = folder, 1000 * S + 777
        self.mapping = load_mapping(folder / "m.toml")
        self.wire = Wire()
        source = SourceConfig(
            pack_id="P-1", interface="socketcan", channel="can0", bitrate=500_000, tty_baudrate=115_200,
            listen_only=True, mapping_path=folder / "m.toml",
        )  # fmt: skip
        self.lane = _lane(source, self.wire, self.mapping)
        self.config = config or RecorderConfig()
        self.recorder = Recorder(
            self.config, folder / "cold", folder / "hot" if tmpfs else None,
            now=lambda: self.mono_ns, offset_ns=lambda: OFFSET_NS, dating_ns=lambda: OFFSET_NS,
        )  # fmt: skip
        self.lane.record(self.recorder, "box")
        self.given: list[Measured] = []

    def tick(self, *frames: Frame) -> None:
        """A read that brings these frames."""
        self.wire.said.extend(frames)
        self.lane.tick(self.mono_ns)

    def measure(self, *, dated: bool = True) -> None:
        """Takes a Sample, in whole ms as the agent does."""
        mono_ns = self.mono_ns // 1_000_000 * 1_000_000
        t_ns = round((mono_ns + OFFSET_NS) / 1_000_000) * 1_000_000 if dated else None
        sample = self.lane.sample(mono_ns, t_ns)
        if sample is not None:
            self.given.append(sample)

    def drive(self, seconds: int, *, alarm: int = 0, cells_known: bool = True) -> None:
        """Ten reads a second and a Sample."""
        for _ in range(seconds):
            for tenth in range(10):
                self.mono_ns += S // 10
                frames = [pack(self.mono_ns - 3_333_333, 390 + tenth / 10, tenth - 4, alarm=alarm)]
                if cells_known or tenth < 5:
                    frames.append(cells(self.mono_ns - 1_111, int(cells_known and tenth % 2), 3.8, 3.7 + tenth / 100))
                self.tick(*frames)
            self.measure()
            self.recorder.step()

    def kept(self) -> list[Meta]:
        return self.recorder.store.all()

    def exported(self, meta: Meta) -> Path:
        """As `edge capture export` does."""
        log = self.folder / f"{meta.id}.log"
        for name, path in (("log", log), ("state", beside(log, "state")), ("serial", beside(log, "serial"))):
            if name in meta.files or name == "log":
                path.write_bytes(b"".join(self.recorder.store.text(meta, name)))
        return log

    def replayed(self, meta: Meta) -> list[dict[str, Any]]:
        """The Samples of a capture by their names."""
        log = self.exported(meta)
        state = state_beside(log)
        assert state is not None
        return told(capture_samples(log, state, self.mapping, state.pack_id))

    def given_within(self, replayed: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What the agent gave from the first to the last time of these."""
        first, last = replayed[0]["mono_ns"], replayed[-1]["mono_ns"]
        return [one for one in told(self.dated()) if first <= one["mono_ns"] <= last]

    def dated(self) -> Iterator[Measured]:
        """As the outbox dates them."""
        for one in self.given:
            yield one if one.t_ns is not None else replace(one, t_ns=one.mono_ns + OFFSET_NS)


def told(samples: Iterable[Measured]) -> list[dict[str, Any]]:
    return [dict(readable(one)) for one in samples]


def _lane(source: SourceConfig, wire: Wire, mapping: Any) -> Lane:
    from edge.dbc.load import load

    return Lane(source, FrameIntake(wire, mapping, load(mapping.dbc), "can0"), mapping, 1.0)
