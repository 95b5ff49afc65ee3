"""packtwin.dbc and what is made from it: cantools is the judge of every frame."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import cantools
import numpy as np
import pytest
from cantools.database.can import Database

from firmware_bridge.frames import EXTENDED
from firmware_bridge.pack.signals import NAMES
from firmware_bridge.packer import TICK_NS, Packer, packtwin_dbc
from shared.errors import ConfigError
from shared.fields import ALARMS, BALANCING, BY_NAME

MAPPING = Path(__file__).parents[2] / "edge" / "samples" / "mapping.toml"
CRC_POLYNOMIAL = 0x1D


@pytest.fixture(scope="module")
def dbc() -> Database:
    database = cantools.database.load_string(packtwin_dbc(), "dbc")
    assert isinstance(database, Database)
    return database


@pytest.fixture(scope="module")
def packer() -> Packer:
    return Packer(packtwin_dbc(), NAMES)


def crc8_j1850(payload: bytes) -> int:
    """Bit by bit, as the standard describes it."""
    crc = 0xFF
    for byte in payload:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ CRC_POLYNOMIAL if crc & 0x80 else crc << 1) & 0xFF
    return crc ^ 0xFF


def test_the_dbc_is_a_real_bus(dbc: Database) -> None:
    signals = [signal for message in dbc.messages for signal in message.signals]
    assert len(dbc.messages) >= 40
    assert {signal.byte_order for signal in signals} == {"big_endian", "little_endian"}
    assert {message.is_extended_frame for message in dbc.messages} == {True, False}
    assert any(signal.is_signed for signal in signals)
    assert any(signal.choices for signal in signals)
    assert all(0 < (message.cycle_time or 0) <= 1000 for message in dbc.messages)
    assert len({message.frame_id for message in dbc.messages}) == len(dbc.messages)


def test_cells_and_temperatures_are_multiplexed(dbc: Database) -> None:
    cells, temps = dbc.get_message_by_name("BMS_CellVolt"), dbc.get_message_by_name("BMS_Temp")
    assert sum(signal.multiplexer_ids is not None for signal in cells.signals) == 96
    assert sum(signal.multiplexer_ids is not None for signal in temps.signals) == 16


def test_every_signal_reads_back_within_half_a_step(dbc: Database, packer: Packer) -> None:
    rng = np.random.default_rng(3)
    specs = {signal.name: signal for message in dbc.messages for signal in message.signals}
    seen: set[str] = set()
    for tick in range(40):
        given = {name: float(rng.uniform(specs[name].minimum or 0.0, specs[name].maximum or 0.0)) for name in NAMES}
        batch = packer.frames("can0", tick, np.array(list(given.values())), 0)
        for _, can_id, payload in batch.rows():
            message = dbc.get_message_by_frame_id(can_id & 0x1FFF_FFFF)
            assert message.is_extended_frame is bool(can_id & EXTENDED)
            for name, value in message.decode(payload, decode_choices=False).items():
                if name in given:
                    assert abs(float(value) - given[name]) <= specs[name].scale * 0.500001, name  # type: ignore[arg-type]
                    seen.add(name)
    assert seen == set(NAMES)


def test_values_beyond_a_signal_are_cut_and_never_wrap(dbc: Database, packer: Packer) -> None:
    batch = packer.frames("can0", 0, np.full(len(NAMES), 1e12), 0)
    by_id = {can_id & 0x1FFF_FFFF: payload for _, can_id, payload in batch.rows()}
    values = dbc.get_message_by_name("BMS_PackElec").decode(by_id[0x100])
    assert values["PackVoltage"] == pytest.approx(655.35)
    assert values["PackCurrent"] == pytest.approx(1310.71)


def test_each_message_keeps_its_period_exactly_and_no_two_frames_share_a_moment(dbc: Database, packer: Packer) -> None:
    values = np.zeros(len(NAMES))
    frames = [row for tick in range(20) for row in packer.frames("can0", tick, values, tick * TICK_NS).rows()]
    times = np.array([t_ns for t_ns, _, _ in frames])
    assert (np.diff(times) > 0).all()
    for message in dbc.messages:
        own = np.array([t_ns for t_ns, can_id, _ in frames if can_id & 0x1FFF_FFFF == message.frame_id])
        assert (np.diff(own) == (message.cycle_time or 0) * 1_000_000).all()
        assert len(own) >= 2
    assert len(frames) / 2 == packer.frames_per_s >= 1900


def test_groups_and_counters_go_round_and_the_crc_holds(dbc: Database, packer: Packer) -> None:
    rng = np.random.default_rng(5)
    groups: list[int] = []
    counters: list[int] = []
    for tick in range(25):
        for _, can_id, payload in packer.frames("can0", tick, rng.uniform(0, 100, len(NAMES)), 0).rows():
            message = dbc.get_message_by_frame_id(can_id & 0x1FFF_FFFF)
            values = message.decode(payload, decode_choices=False)
            if "Crc" in values:
                assert values["Crc"] == crc8_j1850(payload[:-1])
            if message.name == "BMS_CellVolt":
                groups.append(int(values["CellGroup"]))  # type: ignore[arg-type]
            if message.name == "VCU_Pedals":
                counters.append(int(values["Counter"]))  # type: ignore[arg-type]
    assert groups == [n % 32 for n in range(250)]
    assert counters == [n % 16 for n in range(250)]


def test_crc_of_the_standard() -> None:
    assert crc8_j1850(b"123456789") == 0x4B


def test_a_signal_that_only_one_side_knows_is_named() -> None:
    with pytest.raises(ConfigError, match="signal PackVoltage is only in one"):
        Packer(packtwin_dbc(), [name for name in NAMES if name != "PackVoltage"])


def test_a_bus_that_is_too_full_is_refused() -> None:
    messages = "\n".join(f'BO_ {n} M{n}: 8 X\n SG_ S{n} : 0|8@1+ (1,0) [0|255] "" X\n' for n in range(1, 42))
    periods = "\n".join(f'BA_ "GenMsgCycleTime" BO_ {n} 10;' for n in range(1, 42))
    text = f'VERSION ""\nBU_: X\n{messages}\nBA_DEF_ BO_ "GenMsgCycleTime" INT 0 1000;\n{periods}\n'
    with pytest.raises(ConfigError, match="more frames than a bus"):
        Packer(text, [f"S{n}" for n in range(1, 42)])


def test_the_sample_mapping_names_only_signals_of_the_dbc_and_fields_of_a_sample(dbc: Database) -> None:
    mapping = tomllib.loads(MAPPING.read_text(encoding="utf-8"))
    known = {f"{message.name}.{signal.name}" for message in dbc.messages for signal in message.signals}
    used: list[str] = list(mapping["alarms"].values())
    for name, entry in mapping["fields"].items():
        assert name in BY_NAME or name == BALANCING or name.startswith("extra.")
        first, count = entry.get("first", 0), entry.get("count", 1)
        used += [entry["from"].format(n) for n in range(first, first + count)]
    assert set(used) <= known
    assert max(Counter(used).values()) == 1
    assert set(mapping["alarms"]) == ALARMS
    assert set(BY_NAME) <= set(mapping["fields"])
