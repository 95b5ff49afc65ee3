"""Virtual BMSs in their own languages, as they are and with a fault: the right reason within the max age, else none."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes.said_day import Hearer, S

from edge.decode_parts import PartDecoder
from edge.mapping import load_mapping
from firmware_bridge.pack.car import Car
from firmware_bridge.protocol import Part
from firmware_bridge.shelf import protocol
from firmware_bridge.virtual.lies import Lies
from firmware_bridge.virtual.pack import VirtualPack
from firmware_bridge.virtual.voice import carried, said_of

LANGUAGES = {
    "jbd": None, "jk02": None, "jk_uart": None, "daly_uart": None, "daly_modbus": None, "seplos_v2": None,
    "seplos_v3": None, "foxbms_can": None, "uds_ev": "kona",
}  # fmt: skip
COUNTED = {"jk02": "extra.runtime_s", "daly_uart": "extra.life"}
FAULT_S = 20.0
MAX_AGE_S = 5.0


class Desk:
    """A virtual pack, a reading a second of each of its messages, each a tick after the one before, and its Samples."""

    def __init__(
        self, folder: Path, name: str, lies: Lies, seed: int = 1, number: int = 0, fault_s: float = FAULT_S
    ) -> None:
        self.spoken, self.vehicle = protocol(name), LANGUAGES[name]
        cells = carried(self.spoken, "cell_v", None if self.vehicle else 16, self.vehicle)
        temps = carried(self.spoken, "temp_c", 4, self.vehicle)
        self.pack = VirtualPack("V", Car(seed, number), None, cells, temps)
        self.lies = Lies(**{**{each: getattr(lies, each) for each in lies.__slots__}, "after_s": fault_s})
        said = {name for part in self._messages() for name, value in part.values.items() if value is not None}
        fields = [f'{each} = {{ from = "{each}" }}' for each in ("pack_v", "current_a", "soc_bms") if each in said]
        fields.append(f'cell_v = {{ from = "cell_v[{{}}]", count = {cells} }}')
        vehicle = f'vehicle = "{self.vehicle}"\n' if self.vehicle else ""
        (folder / "m.toml").write_text(
            f'protocol = "{name}"\n{vehicle}[pack]\nchemistry = "nmc"\nseries = {cells}\nnominal_ah = 180\n[fields]\n'
            + "\n".join(fields)
        )
        mapping = load_mapping(folder / "m.toml")
        self.cells, self.fields = cells, [line.split(" ")[0] for line in fields]
        self.decoder, self.hearer = PartDecoder(mapping), Hearer(mapping)

    def _messages(self) -> list[Part]:
        self.pack.step(self.spoken, self.lies)
        t_s = self.pack.car.t_s
        parts = [one for one in said_of(self.spoken, self.pack.values, None, self.vehicle) if isinstance(one, Part)]
        return [part for part in parts if not any(self.lies.hushes(name, t_s) for name in part.values)]

    def run(self, until_s: float) -> None:
        """Seconds of the pack's time."""
        while self.pack.car.t_s < until_s:
            for tick in range(10):
                # Of ten messages that follow each other the n-th is of the n-th tick.
                parts = self._messages()[tick::10]
                t_ns = round(self.pack.car.t_s * S)
                self.hearer.assembler.feed(self.decoder.decode([(t_ns, part) for part in parts]))
            self.hearer.sample(self.pack.car.t_s + 0.001)

    def first(self, field: str, reason: str) -> float:
        """Seconds after the fault at which the field has that reason for the first time."""
        for t_s, quality in self.hearer.all:
            if quality.get(field) == reason:
                return t_s - FAULT_S
        raise AssertionError(f"{field} is never {reason}: {self.hearer.all[-1]}")


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", LANGUAGES)
def test_no_language_is_doubted_without_a_fault(tmp_path: Path, name: str, number: int) -> None:
    desk = Desk(tmp_path, name, Lies(), number=number)
    desk.run(90)
    assert not desk.hearer.doubts
    assert "soc_bms" not in desk.hearer.last and "cell_v[0]" not in desk.hearer.last


@pytest.mark.parametrize("name", LANGUAGES)
def test_a_soc_that_jumps_to_174_percent_or_as_far_as_the_language_can_say(tmp_path: Path, name: str) -> None:
    desk = Desk(tmp_path, name, Lies(soc=1.74))
    desk.run(FAULT_S + 10)
    assert desk.first("soc_bms", "implausible") <= 2.0
    assert {each for _, bad in desk.hearer.doubts for each in bad} == {"soc_bms"}


@pytest.mark.parametrize("off", [0.02, -0.02])
@pytest.mark.parametrize("name", LANGUAGES)
def test_cells_that_are_off_by_2_percent(tmp_path: Path, name: str, off: float) -> None:
    desk = Desk(tmp_path, name, Lies(cell_sum_off=off), number=1)
    desk.run(FAULT_S + 15)
    assert desk.first("cell_v[0]", "implausible") <= MAX_AGE_S
    assert {each.partition("[")[0] for _, bad in desk.hearer.doubts for each in bad} == {"cell_v"}


@pytest.mark.parametrize("name", COUNTED)
def test_a_counter_that_stands_still(tmp_path: Path, name: str) -> None:
    desk = Desk(tmp_path, name, Lies(frozen=True))
    desk.run(FAULT_S + 15)
    for field in (*(each for each in desk.fields if each != "cell_v"), *(f"cell_v[{i}]" for i in range(desk.cells))):
        assert MAX_AGE_S - 1 < desk.first(field, "stuck") <= MAX_AGE_S + 2


def test_a_daly_that_stands_still_from_its_first_second_is_stuck_once_its_own_current_has_moved_enough(
    tmp_path: Path,
) -> None:
    """Its counter proves nothing, as some firmware may not move it; so nothing was said at all."""
    desk = Desk(tmp_path, "daly_uart", Lies(frozen=True), number=1, fault_s=0.1)
    desk.run(5 * 60)
    doubts = [bad for _, bad in desk.hearer.doubts if "stuck" in bad.values()]
    assert doubts and {"pack_v", "current_a", "cell_v[0]"} <= doubts[-1].keys()
    assert "stuck" not in desk.hearer.all[60][1].values()


@pytest.mark.parametrize("name", LANGUAGES)
def test_one_field_that_falls_silent(tmp_path: Path, name: str) -> None:
    desk = Desk(tmp_path, name, Lies(silent_field="cell_v"))
    desk.run(FAULT_S + 10)
    assert MAX_AGE_S - 1 < desk.first("cell_v[0]", "stale") <= MAX_AGE_S + 2
    assert not desk.hearer.doubts
