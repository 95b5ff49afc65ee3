"""Packs that are asked over CAN: what is asked, how often, and that nothing else is ever sent."""

from __future__ import annotations

import random
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes.asked_car import MS, SERIES, CarBus, car_values, virtual
from fakes.flight import OFFSET_NS, told

from edge.capture.exported import beside, state_beside
from edge.capture.recorder import Recorder
from edge.capture.replay import capture_samples
from edge.config import RecorderConfig, load_config
from edge.config_sources import CanPollConfig, SourceConfig
from edge.intake_parts import PartIntake
from edge.lane import Lane
from edge.lanes import build_lanes
from edge.mapping import Mapping, load_mapping
from edge.outbox.records import Measured
from edge.sources.can import source_of
from edge.sources.can_speaker import CanSpeaker, filters_of
from edge.sources.can_voice import READS, NotAllowed, Voice
from edge.sources.ear import Asking
from firmware_bridge import python_can
from firmware_bridge.frames import EXTENDED
from firmware_bridge.isotp_send import flow_control
from firmware_bridge.protocol import LineError, Part, Said
from firmware_bridge.protocols.vehicles.virtual import VirtualVehicle
from firmware_bridge.shelf import protocol
from firmware_bridge.uds import is_flow_control, is_reading_frame, request
from shared.errors import ConfigError

S = 1000 * MS
TICK_NS = 10 * MS
UDS = protocol("uds_ev")
CARS = list(SERIES)


def config(*, poll: bool = True, interface: str = "socketcan", channel: str = "can0") -> SourceConfig:
    return SourceConfig(
        pack_id="CAR", interface=interface, channel=channel, bitrate=500_000, tty_baudrate=115_200,
        listen_only=not poll, mapping_path=Path("m.toml"), can=CanPollConfig(poll=poll),
    )  # fmt: skip


class Ride:
    """A virtual car, the speaker that asks it, and the time."""

    def __init__(self, vehicle: str, *, poll: bool = True, poll_s: float = 1.0) -> None:
        self.car = virtual(vehicle)
        self.bus = CarBus(config(poll=poll), self.car)
        self.speaker = CanSpeaker(self.bus, UDS, vehicle, Asking.of(UDS, vehicle, None, poll_s, polls=poll))
        self.said: list[Said] = []
        self.now = 50 * S + 333

    def run(self, seconds: float) -> None:
        end = self.now + int(seconds * S)
        while self.now < end:
            self.now += TICK_NS
            self.speaker.tick(self.now)
            self.said += [said for _, said in self.speaker.take()]

    @property
    def errors(self) -> list[str]:
        return [it.error for it in self.said if isinstance(it, LineError)]

    def kinds(self) -> list[str]:
        return [it.kind for it in self.said if isinstance(it, Part)]

    def asked(self, read: bytes) -> list[int]:
        """When this was asked, in ns."""
        return [t_ns for t_ns, _, payload in self.bus.sent if payload[1 : 1 + payload[0]] == read]


# what is asked and what comes


@pytest.mark.parametrize("vehicle", CARS)
def test_all_that_a_car_has_comes_and_only_allowed_requests_go_out(vehicle: str) -> None:
    ride = Ride(vehicle)
    ride.run(6)
    assert not ride.errors
    values: dict[str, Any] = {}
    for part in ride.said:
        assert isinstance(part, Part)
        values |= part.values
    for name, value in car_values(vehicle).items():
        if name in values or f"{name.partition('[')[0]}[]" in UDS.vehicle_fields[vehicle]:
            assert values[name] == pytest.approx(value, abs=0.011), name
    assert all(f"cell_v[{i}]" in values for i in range(SERIES[vehicle]))
    assert set(ride.kinds()) == {poll.kind for poll in UDS.polls(None, vehicle)}
    for _, can_id, payload in ride.bus.sent:
        assert READS["uds_ev"](can_id, payload)
        assert is_reading_frame(payload) or is_flow_control(payload)
    assert not ride.car.refused
    assert not ride.speaker.errors


@pytest.mark.parametrize("poll_s", [0.5, 2.0])
def test_it_is_asked_at_the_rate_that_the_config_says(poll_s: float) -> None:
    ride = Ride("kona", poll_s=poll_s)
    ride.run(20)
    times = ride.asked(b"\x22\x01\x01")
    assert len(times) == pytest.approx(20 / poll_s, abs=1)
    gaps = [(after - before) / S for before, after in pairwise(times)]
    assert min(gaps) > poll_s - 0.05
    assert max(gaps) < poll_s + 0.05
    seldom = ride.asked(b"\x22\x01\x00")
    assert len(seldom) == pytest.approx(20 / poll_s / 10, abs=1)


def test_one_question_at_a_time_and_each_long_answer_is_told_to_go_on_once() -> None:
    ride = Ride("kona")
    ride.run(0.9)
    questions = [payload for _, _, payload in ride.bus.sent if is_reading_frame(payload)]
    flows = [payload for _, _, payload in ride.bus.sent if is_flow_control(payload)]
    assert len(questions) == len(flows) == len(UDS.polls(None, "kona"))
    order = [is_flow_control(payload) for _, _, payload in ride.bus.sent]
    assert order == [False, True] * len(questions)


def test_a_car_that_sleeps_is_asked_ever_more_seldom_and_at_once_when_it_wakes_it_is_read() -> None:
    ride = Ride("kona")
    ride.bus.answers = lambda can_id, payload: []
    ride.run(120)
    assert len(ride.bus.sent) < 70
    assert ride.speaker.errors["timeout"] == len(ride.bus.sent)
    assert any("nobody answers in uds_ev" in note for note in ride.speaker.notes)
    ride.bus.answers = ride.car.take
    ride.run(8)
    assert "220101" in ride.kinds()
    assert not ride.speaker.notes


def test_what_the_car_has_not_is_soon_asked_seldom() -> None:
    ride = Ride("kona")
    refuses = b"\x22\x01\x05"

    def answers(can_id: int, payload: bytes) -> list[tuple[int, bytes]]:
        if payload[1:4] == refuses:
            return [(0x7EC, bytes.fromhex("037f2231aaaaaaaa"))]
        return ride.car.take(can_id, payload)

    ride.bus.answers = answers
    ride.run(50)
    assert 3 <= len(ride.asked(refuses)) <= 5
    assert set(ride.errors) == {"response"}
    assert ride.kinds().count("220101") >= 48


def test_an_answer_that_takes_longer_is_waited_for() -> None:
    ride = Ride("bolt")
    read = b"\x22\x43\xaf"

    def answers(can_id: int, payload: bytes) -> list[tuple[int, bytes]]:
        if payload[1:4] == read:
            ride.bus.say_at(ride.bus.now + 20 * MS, [(0x7EC, bytes.fromhex("037f2278aaaaaaaa"))])
            ride.bus.say_at(ride.bus.now + 3 * S, ride.car.take(can_id, payload))
            return []
        return ride.car.take(can_id, payload)

    ride.bus.answers = answers
    ride.run(5)
    assert "2243AF" in ride.kinds()
    assert not ride.errors
    assert not ride.speaker.errors


def read_by_another(ride: Ride, seconds: float, *frames: str) -> None:
    """Five times a second an ECU says this to another tester."""
    for _ in range(round(seconds * 5)):
        ride.bus.say([(0x7EC, bytes.fromhex(frame)) for frame in frames])
        ride.run(0.2)


@pytest.mark.parametrize(
    "frames",
    [("0462BC0301000000",), ("102062BC0301FFFF", *(f"2{n}AAAAAAAAAAAAAA" for n in range(1, 5)))],
    ids=["short", "long"],
)
def test_what_another_tester_is_answered_does_not_stand_for_a_lost_answer(frames: tuple[str, ...]) -> None:
    """Each frame of that ECU was taken for ours on its way: after one lost answer nothing was asked for ever."""
    ride = Ride("kona")
    lost: list[bytes] = []

    def answers(can_id: int, payload: bytes) -> list[tuple[int, bytes]]:
        if not lost:
            lost.append(payload)
            return []
        return ride.car.take(can_id, payload)

    ride.bus.answers = answers
    read_by_another(ride, 10, *frames)
    assert ride.speaker.errors["timeout"] == 1
    assert len(ride.asked(b"\x22\x01\x01")) >= 9
    assert ride.kinds().count("220101") >= 8


def test_a_car_that_answers_only_another_tester_is_noted() -> None:
    ride = Ride("kona")
    ride.bus.answers = lambda can_id, payload: []
    read_by_another(ride, 30, "0462BC0301000000")
    assert len(ride.bus.sent) > 10
    assert ride.speaker.errors["timeout"] == pytest.approx(len(ride.bus.sent), abs=1)
    assert any("nobody answers in uds_ev" in note for note in ride.speaker.notes)


def test_an_ecu_that_takes_longer_for_ever_is_given_up_and_asked_again() -> None:
    ride = Ride("kona")
    ride.bus.answers = lambda can_id, payload: []
    read_by_another(ride, 130, "037F2278AAAAAAAA")
    assert 5 <= len(ride.bus.sent) <= 7
    assert ride.speaker.errors["timeout"] >= 5
    assert any("nobody answers in uds_ev" in note for note in ride.speaker.notes)


def test_a_bus_that_takes_nothing_is_counted_and_tried_again() -> None:
    ride = Ride("kona")
    ride.bus.is_full = True
    ride.run(0.5)
    assert ride.speaker.errors["not_sent"] > 10
    ride.bus.is_full = False
    ride.run(1)
    assert "220101" in ride.kinds()


# what is never sent


@pytest.mark.parametrize("vehicle", CARS)
def test_who_only_listens_never_transmits(vehicle: str) -> None:
    """Whatever is on the bus: answers to others, first frames that wait to be told to go on, questions, noise."""
    ride = Ride(vehicle, poll=False)
    rng = random.Random(vehicle)
    frames = ride.car.all_frames()
    asks = [(poll.can_id or 0, poll.request) for poll in UDS.polls(None, vehicle)]
    for _ in range(60):
        ride.bus.say(rng.sample(frames, 3) + rng.sample(frames[:1] + asks, 1))
        ride.bus.say([(rng.randrange(0x800), rng.randbytes(8))])
        ride.run(0.3)
    ride.bus.say(frames)
    ride.run(3)
    assert set(ride.kinds()) >= {poll.kind for poll in UDS.polls(None, vehicle)}
    assert ride.bus.sent == []


@pytest.mark.parametrize("interface", ["virtual", "slcan", "socketcan"])
def test_a_source_that_only_listens_has_no_way_to_send(interface: str) -> None:
    source = source_of(config(poll=False, interface=interface))
    with pytest.raises(RuntimeError, match="CAR only listens"):
        source.send(0x7E4, request(b"\x22\x01\x01"))


FORBIDDEN = [
    (0x7E4, "042ef1900000000000"[:16]),  # write an identifier
    (0x7E4, "0210030000000000"),  # another session
    (0x7E4, "0227010000000000"),  # ask for the key
    (0x7E4, "0414ffffff000000"),  # forget the faults
    (0x7E4, "052ff03803ff0000"),  # close a relay
    (0x7E4, "0431010203000000"),  # run a routine
    (0x7E4, "0211010000000000"),  # restart
    (0x7E4, "023e000000000000"),  # keep a session
    (0x7E4, "0319020800000000"),  # faults: reading, but not on the list
    (0x7E4, "0522010122010200"),  # more than one
    (0x7E4, "1014220101010203"),  # the beginning of something long
    (0x7E4, "2122010100000000"),
    (0x7E4, "3100000000000000"),  # wait
    (0x7E4, "3200000000000000"),  # overflow
    (0x7E4, "00"),
    (0x7E4, ""),
    (0x123, "0322010100000000"),  # not an ECU of this car
    (0x7DF, "0322010100000000"),
    (EXTENDED | 0x7E4, "0322010100000000"),
]


@pytest.mark.parametrize(("can_id", "payload"), FORBIDDEN)
def test_the_voice_says_nothing_but_reading_requests(can_id: int, payload: str) -> None:
    went: list[tuple[int, bytes]] = []
    voice = Voice("uds_ev", tuple(UDS.polls(None, "kona")), lambda *frame: went.append(frame) is None)
    with pytest.raises(NotAllowed, match="it was not sent"):
        voice.say(can_id, bytes.fromhex(payload))
    assert went == []
    assert voice.say(0x7E4, request(b"\x22\x01\x01"))
    assert voice.say(0x7E4, flow_control())
    assert len(went) == voice.sent == 2


LANGUAGES = [name for name in READS if find_spec(f"firmware_bridge.protocols.{name}")]


@pytest.mark.parametrize("language", LANGUAGES)
def test_of_all_that_could_be_sent_only_readings_pass(language: str) -> None:
    """Random frames to the very ids of a pack: what passes is a request of that language's polls, or flow control."""
    spoken = protocol(language)
    polls = tuple(spoken.polls(None, spoken.vehicles[0] if spoken.vehicles else None))
    rng = random.Random(language)
    ids = [poll.can_id for poll in polls if poll.can_id is not None]
    reads = {0x22: 3, 0x21: 2, 0x01: 2}
    passed = 0
    voice = Voice(language, polls, lambda can_id, payload: True)
    for _ in range(20_000):
        can_id = rng.choice(ids) ^ (1 << rng.randrange(29) if rng.random() < 0.3 else 0)
        payload = bytearray(rng.choice((polls[0].request, rng.randbytes(rng.randrange(9)))))
        if payload and rng.random() < 0.8:
            payload[rng.randrange(len(payload))] = rng.choice((0, 1, 2, 3, 0x21, 0x22, 0x2E, 0x30, rng.randrange(256)))
        try:
            voice.say(can_id, bytes(payload))
        except NotAllowed:
            continue
        passed += 1
        assert can_id in ids
        if language == "uds_ev":
            assert payload[0] == 0x30 or reads[payload[1]] == payload[0]
        elif language == "daly_can":
            assert not any(payload)
    assert 0 < passed < 20_000


def test_a_language_that_is_not_on_the_list_has_no_voice() -> None:
    polls = tuple(UDS.polls(None, "kona"))
    with pytest.raises(NotAllowed):
        Voice("jk_can", polls, lambda can_id, payload: True).say(0x7E4, polls[0].request)


@pytest.mark.parametrize("vehicle", CARS)
def test_another_testers_answer_is_not_told_to_go_on(vehicle: str) -> None:
    """It would get two flow controls, and send all twice as fast as it was asked to."""
    ride = Ride(vehicle)
    ride.bus.answers = lambda can_id, payload: []
    firsts = [frame for frame in ride.car.all_frames() if frame[1][0] >> 4 == 1]
    polls = UDS.polls(None, vehicle)
    for frame in firsts:
        if frame[1][2:5] != bytes([polls[0].request[1] + 0x40]) + polls[0].request[2:4]:
            ride.bus.say([frame])
    ride.run(0.4)
    assert not any(is_flow_control(payload) for _, _, payload in ride.bus.sent)


# Daly, over the same road


class DalyBus(CarBus):
    """Two packs on a bus."""


def test_a_daly_on_can_is_read_and_a_neighbour_is_not_taken_for_it() -> None:
    spoken = protocol("daly_can")
    bus = DalyBus(config(), virtual("kona"))
    speaker = CanSpeaker(bus, spoken, None, Asking.of(spoken, None, 2, 1.0))
    mine = {"pack_v": 51.2, "current_a": -10.0, "soc_bms": 0.5} | {f"cell_v[{i}]": 3.2 for i in range(16)}
    other = mine | {"pack_v": 48.0} | {f"cell_v[{i}]": 3.0 for i in range(16)}
    assert spoken.frames is not None

    def answers(can_id: int, payload: bytes) -> list[tuple[int, bytes]]:
        command = can_id >> 16 & 0xFF
        both = [*spoken.frames(other, 1, None), *spoken.frames(mine, 2, None)]  # type: ignore[misc]
        return [frame for frame in both if frame[0] >> 16 & 0xFF == command]

    bus.answers = answers
    said: list[Said] = []
    for n in range(600):
        speaker.tick(S + n * TICK_NS)
        said += [it for _, it in speaker.take()]
    values: dict[str, Any] = {}
    for part in said:
        if isinstance(part, Part):
            assert part.address == 2
            values |= part.values
    assert values["pack_v"] == pytest.approx(51.2)
    assert values["current_a"] == pytest.approx(-10.0)
    assert [values[f"cell_v[{i}]"] for i in range(16)] == [3.2] * 16
    assert all(READS["daly_can"](can_id, payload) for _, can_id, payload in bus.sent)
    wanted = {can_id for can_id, _ in filters_of(spoken, None, 2)}
    assert {can_id & 0xFF for can_id in wanted} == {0x02, 0x40}


def test_a_daly_that_another_one_asks_all_the_time_is_asked_all_it_has() -> None:
    """An answer of no fixed length was over only once nothing of its kind came: there the first never ended."""
    spoken = protocol("daly_can")
    bus = DalyBus(config(), virtual("kona"))
    speaker = CanSpeaker(bus, spoken, None, Asking.of(spoken, None, 1, 1.0))
    values = {"pack_v": 51.2, "current_a": 1.0, "soc_bms": 0.5} | {f"cell_v[{i}]": 3.2 for i in range(16)}
    assert spoken.frames is not None
    frames = spoken.frames(values, 1, None)
    bus.answers = lambda can_id, payload: [one for one in frames if one[0] >> 16 & 0xFF == can_id >> 16 & 0xFF]
    for n in range(3000):
        if n % 20 == 0:
            bus.say([one for one in frames if one[0] >> 16 & 0xFF == 0x95])
        speaker.tick(S + n * TICK_NS)
    asked = [can_id >> 16 & 0xFF for _, can_id, _ in bus.sent]
    assert asked.count(0x95) >= 3
    assert asked.count(0x90) >= 3


# config


EDGE = """
device = "box"
data_dir = "data"
hot_dir = ""
[page]
port = 0
[metrics]
port = 0
[[source]]
pack_id = "CAR"
interface = "virtual"
channel = "asked"
mapping = "m.toml"
"""
MAPPING = """
protocol = "uds_ev"
vehicle = "kona"
[pack]
series = 98
[fields]
pack_v = { from = "pack_v" }
current_a = { from = "current_a" }
soc_bms = { from = "soc_bms" }
cell_v = { from = "cell_v[{}]", count = 98 }
temp_c = { from = "temp_c[{}]", count = 4 }
"""


def written(folder: Path, more: str = "", mapping: str = MAPPING) -> Path:
    (folder / "m.toml").write_text(mapping)
    (folder / "edge.toml").write_text(EDGE + more)
    return folder / "edge.toml"


@pytest.mark.parametrize(
    ("more", "mapping", "words"),
    [
        ("poll = true\nlisten_only = true\n", MAPPING, "who only listens cannot ask"),
        (
            "poll = true\n",
            'protocol = "pylontech_can"\n[fields]\npack_v = { from = "pack_v" }\n',
            "talks by itself",
        ),
        (
            "poll = true\n",
            'dbc = "packtwin.dbc"\n[fields]\npack_v = { from = "BMS_PackVoltage" }\n',
            'needs protocol = "NAME"',
        ),
        ("", MAPPING.replace('"uds_ev"\nvehicle = "kona"', '"jbd"'), 'give CAR type = "serial"'),
        ("", MAPPING.replace('vehicle = "kona"\n', ""), "needs one of kona"),
        ("", MAPPING + 'insulation_kohm = { from = "extra.hx" }\n', "nothing that uds_ev says"),
        ("poll_s = 0.01\n", MAPPING, "poll_s"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(tmp_path: Path, more: str, mapping: str, words: str) -> None:
    with pytest.raises(ConfigError) as said:
        build_lanes(load_config(written(tmp_path, more, mapping), {}))
    assert words in str(said.value)
    assert "\n" not in str(said.value)


def test_without_poll_a_source_listens(tmp_path: Path) -> None:
    listening = load_config(written(tmp_path), {}).sources[0]
    assert not listening.can.poll
    assert listening.listen_only
    asking = load_config(written(tmp_path, "poll = true\npoll_s = 2\naddress = 3\n"), {}).sources[0]
    assert asking.can == CanPollConfig(poll=True, address=3, poll_s=2.0)
    assert not asking.listen_only


@pytest.mark.parametrize("poll", [True, False])
def test_a_lane_from_its_config_on_a_bus_of_python_can(tmp_path: Path, poll: bool) -> None:
    """What a peer on the bus sees: requests of the polls, or nothing at all."""
    can = python_can.load()
    channel = f"asked-{tmp_path.name}"
    path = written(tmp_path, f"poll = {str(poll).lower()}\n")
    path.write_text(path.read_text().replace('"asked"', f'"{channel}"'))
    (lane,) = build_lanes(load_config(path, {}))
    car, seen = virtual("kona"), []
    with can.Bus(interface="virtual", channel=channel) as peer:
        lane.intake.open()
        if not poll:
            answer_all(can, peer, car)
        for n in range(300):
            lane.tick(S + n * TICK_NS)
            while (message := peer.recv(timeout=0)) is not None:
                seen.append((message.arbitration_id, bytes(message.data)))
                send_all(can, peer, car.take(*seen[-1]))
        sample = lane.sample(S + 3 * S, None)
        lane.intake.close()
    assert sample is not None
    (reading,) = told([sample])
    assert reading["pack_v"] == car_values("kona")["pack_v"]
    assert len(reading["cell_v"]) == 98
    assert None not in reading["cell_v"]
    assert not car.refused
    assert bool(seen) is poll
    assert all(is_reading_frame(payload) or is_flow_control(payload) for _, payload in seen)


def answer_all(can: Any, peer: Any, car: VirtualVehicle) -> None:
    """As if another tester had asked."""
    send_all(can, peer, car.all_frames())


def send_all(can: Any, peer: Any, frames: list[tuple[int, bytes]]) -> None:
    for can_id, payload in frames:
        peer.send(can.Message(arbitration_id=can_id, data=payload, is_extended_id=False))


# captures


class Voyage:
    """A lane that asks, with a recorder; the car answers late, badly or not at all, by a seed."""

    def __init__(self, folder: Path, mapping: Mapping, seed: int, *, poll: bool) -> None:
        self.folder, self.mapping, self.now = folder, mapping, 1000 * S + 777
        self.rng = random.Random(seed)
        self.car = virtual("kona")
        self.bus = CarBus(config(poll=poll), self.car)
        self.bus.answers = self.answers
        speaker = CanSpeaker(self.bus, UDS, "kona", Asking.of(UDS, "kona", None, 0.5, polls=poll))
        self.lane = Lane(config(poll=poll), PartIntake(speaker, mapping), mapping, 1.0)
        self.recorder = Recorder(
            RecorderConfig(before_s=6, after_s=3), folder / "cold", None,
            now=lambda: self.now, offset_ns=lambda: OFFSET_NS, dating_ns=lambda: OFFSET_NS,
        )  # fmt: skip
        self.given: list[Measured] = []
        self.lane.record(self.recorder, "box")

    def answers(self, can_id: int, payload: bytes) -> list[tuple[int, bytes]]:
        self.car.values = car_values("kona") | {"pack_v": self.rng.randrange(3530, 3550) / 10}
        frames = self.car.take(can_id, payload)
        if self.rng.random() < 0.05:
            return frames[: self.rng.randrange(len(frames) + 1)]
        self.bus.takes_ns = self.rng.choice((4, 30, 300)) * MS
        return frames

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            if not self.bus.config.can.poll:
                self.car.values = car_values("kona") | {"pack_v": self.rng.randrange(3530, 3550) / 10}
                self.bus.say(self.car.all_frames())
            for _ in range(100):
                self.now += TICK_NS
                self.lane.tick(self.now)
            mono_ns = self.now // MS * MS
            if (sample := self.lane.sample(mono_ns, mono_ns + OFFSET_NS // MS * MS)) is not None:
                self.given.append(sample)
            self.recorder.step()


@pytest.mark.parametrize("poll", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_capture_gives_the_agents_own_samples_again(tmp_path: Path, seed: int, poll: bool) -> None:
    written(tmp_path)
    voyage = Voyage(tmp_path, load_mapping(tmp_path / "m.toml"), seed, poll=poll)
    voyage.run(15)
    voyage.recorder.want("CAR", "low_soc", voyage.now)
    voyage.run(6)
    (meta,) = voyage.recorder.store.all()
    log = tmp_path / "x.log"
    for name, path in (("log", log), ("state", beside(log, "state"))):
        path.write_bytes(b"".join(voyage.recorder.store.text(meta, name)))
    state = state_beside(log)
    assert state is not None
    again = told(capture_samples(log, state, voyage.mapping, "CAR"))
    assert len(again) >= 7
    first, last = again[0]["mono_ns"], again[-1]["mono_ns"]
    given = [one for one in told(replace(one) for one in voyage.given) if first <= one["mono_ns"] <= last]
    assert again == given
    assert len({one["pack_v"] for one in again}) > 3
