"""From edge.toml to lanes: each mapping and each DBC is read once, each source built, nothing opened."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edge.addresses import check_address
from edge.capture.recorder import Recorder
from edge.clock import Clock
from edge.config import Config
from edge.config_sources import BLUETOOTH, SourceConfig
from edge.dbc.load import load
from edge.dbc.model import Database
from edge.intake import FrameIntake, Intake
from edge.intake_parts import PartIntake
from edge.lane import Lane
from edge.mapping import Mapping, load_mapping
from edge.mapping_protocol import Spoken
from edge.outbox.box import Outbox
from edge.sources.can import source_of
from edge.sources.can_speaker import CanSpeaker
from edge.sources.can_speaker import filters_of as speaker_filters
from edge.sources.can_voice import READS
from edge.sources.ear import Asking
from edge.sources.filters import filters_of
from edge.sources.serial_line import Line, Seat
from shared.errors import ConfigError

log = logging.getLogger(__name__)

_MOST_NOTES: Final = 10  # of one DBC in the log


def build_lanes(config: Config, offset_ns: Callable[[], int | None] = lambda: None) -> list[Lane]:
    """One lane per [[source]]. ConfigError: a source and its mapping do not fit together.

    offset_ns: gives UTC - mono_ns, None = not known.
    """
    build = _Build(config.device, config.outbox.cold_dir, offset_ns)
    build.lines(config.sources)
    lanes = []
    for source in config.sources:
        mapping = build.mapping(source.mapping_path)
        lanes.append(Lane(source, build.intake(source, mapping), mapping, config.sample_s))
    return lanes


class _Build:
    """Reads what several sources have in common once."""

    def __init__(self, device: str, data_dir: Path, offset_ns: Callable[[], int | None]) -> None:
        self._device, self._data_dir, self._offset_ns = device, data_dir, offset_ns
        self._mappings: dict[Path, Mapping] = {}
        self._databases: dict[Path, Database] = {}
        self._seats: dict[str, Seat] = {}

    def mapping(self, path: Path) -> Mapping:
        if path not in self._mappings:
            self._mappings[path] = load_mapping(path)
        return self._mappings[path]

    def lines(self, sources: Sequence[SourceConfig]) -> None:
        """Takes a seat for each pack on a serial port; those of one port share a line."""
        ports: dict[str, list[SourceConfig]] = {}
        for source in sources:
            if source.serial is not None:
                ports.setdefault(source.channel, []).append(source)
        for channel, here in ports.items():
            spoken = [_on_a_line(source, self.mapping(source.mapping_path)) for source in here]
            names = {one.protocol.name for one in spoken}
            if len(names) > 1:
                raise ConfigError(f"{channel}: {' and '.join(sorted(names))} on one line: one line speaks one language")
            packs = [
                Asking.of(one.protocol, one.vehicle, serial.address, serial.poll_s, polls=serial.poll)
                for one, source in zip(spoken, here, strict=True)
                if (serial := source.serial) is not None
            ]
            baudrate = here[0].serial.baudrate if here[0].serial is not None else None
            line = Line(channel, spoken[0].protocol, baudrate, packs)
            self._seats.update(zip((source.pack_id for source in here), line.seats, strict=True))

    def intake(self, source: SourceConfig, mapping: Mapping) -> Intake:
        if source.serial is not None:
            return PartIntake(self._seats[source.pack_id], mapping)
        if source.mqtt is not None:
            return self._on_a_broker(source, mapping)
        if source.ble is not None:
            return _over_bluetooth(source, mapping)
        if mapping.published is not None:
            raise ConfigError(f'{mapping.path}: [mqtt] is for a broker: give {source.pack_id} type = "mqtt"')
        if mapping.spoken is not None:
            return PartIntake(_on_a_bus(source, mapping, mapping.spoken), mapping)
        if source.can.poll:
            raise ConfigError(
                f'{mapping.path}: {source.pack_id} has poll = true, so its mapping needs protocol = "NAME" instead of '
                "dbc: what may be asked is known of these only"
            )
        if mapping.dbc is None:
            raise ConfigError(f'{mapping.path}: [csv] is for replay, a CAN bus needs dbc = "FILE"')
        if mapping.dbc not in self._databases:
            self._databases[mapping.dbc] = _told(load(mapping.dbc))
        dbc = self._databases[mapping.dbc]
        return FrameIntake(source_of(source, filters_of(mapping, dbc)), mapping, dbc, source.channel)

    def _on_a_broker(self, source: SourceConfig, mapping: Mapping) -> Intake:
        if mapping.published is None:
            raise ConfigError(
                f"{mapping.path}: {source.pack_id} is on a broker, so it needs a table [mqtt], and from = "
                '"TOPIC#PATH" for its fields'
            )
        from edge.sources.mqtt import MqttIntake  # and with it MQTT, which most do not need
        from edge.sources.mqtt_names import NamesFile

        names = NamesFile(self._data_dir / "mqtt" / f"{source.pack_id}.json")
        return MqttIntake(source, mapping, self._device, self._offset_ns, names)


def _over_bluetooth(source: SourceConfig, mapping: Mapping) -> Intake:
    """A pack that aiobmsble reads. ConfigError: its mapping is of another kind, or there is no Bluetooth here."""
    if mapping.spoken is None or mapping.spoken.protocol.medium != BLUETOOTH:
        raise ConfigError(f'{mapping.path}: {source.pack_id} is on Bluetooth, so it needs protocol = "{BLUETOOTH}"')
    from edge.sources.ble import BleSpeaker  # and with it Bluetooth, which most do not have

    return PartIntake(BleSpeaker(source), mapping)


def _on_a_line(source: SourceConfig, mapping: Mapping) -> Spoken:
    """What a pack on a serial port speaks. ConfigError: its mapping is of another kind."""
    spoken = mapping.spoken
    if spoken is None or spoken.protocol.bytes_decoder is None:
        names = "`python -m firmware_bridge list` shows those of serial lines"
        raise ConfigError(
            f'{mapping.path}: {source.pack_id} is on a serial port, so it needs protocol = "NAME": {names}'
        )
    address, polls = (source.serial.address, source.serial.poll) if source.serial is not None else (None, False)
    check_address(source.pack_id, spoken.protocol, spoken.vehicle, address, polls=polls)
    return spoken


def _on_a_bus(source: SourceConfig, mapping: Mapping, spoken: Spoken) -> CanSpeaker:
    """A pack that speaks on a CAN bus. ConfigError: its mapping is of another kind, or it cannot be asked."""
    protocol, can = spoken.protocol, source.can
    if protocol.medium == BLUETOOTH:
        raise ConfigError(f'{mapping.path}: {protocol.name} is for Bluetooth: give {source.pack_id} type = "ble"')
    if protocol.frames_decoder is None:
        raise ConfigError(
            f'{mapping.path}: {protocol.name} is spoken on serial lines: give {source.pack_id} type = "serial"'
        )
    check_address(source.pack_id, protocol, spoken.vehicle, can.address, polls=can.poll)
    asking = Asking.of(protocol, spoken.vehicle, can.address, can.poll_s, polls=can.poll)
    if can.poll and (not asking.polls or protocol.name not in READS):
        raise ConfigError(f"{mapping.path}: {protocol.name} talks by itself: leave poll = true of {source.pack_id} out")
    bus = source_of(source, speaker_filters(protocol, spoken.vehicle, can.address))
    return CanSpeaker(bus, protocol, spoken.vehicle, asking)


def _told(database: Database) -> Database:
    """The DBC itself; what was wrong with it goes to the log."""
    for note in database.notes[:_MOST_NOTES]:
        log.warning("dbc %s", note)
    if len(database.notes) > _MOST_NOTES:
        log.warning("dbc %s: %d more such notes", database.path, len(database.notes) - _MOST_NOTES)
    return database


def build_recorder(config: Config, lanes: list[Lane], clock: Clock, outbox: Outbox) -> Recorder | None:
    """The flight recorder with all lanes in it; None where it is off."""
    if not config.recorder.max_bytes:
        return None
    recorder = Recorder(
        config.recorder,
        config.outbox.cold_dir,
        config.outbox.hot_dir,
        now=clock.mono_ns,
        offset_ns=clock.offset_ns,
        dating_ns=outbox.dating_ns,
    )
    for lane in lanes:
        lane.record(recorder, config.device)
    return recorder
