"""A mapping that names what a BMS language says: checked against that language, units and steps taken from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config_sources import SAMPLES
from edge.decode_parts import PartDecoder
from edge.mapping import Mapping, load_mapping
from firmware_bridge.protocol import Part
from shared.errors import ConfigError
from shared.fields import Resolution

HEAD = 'protocol = "jbd"\n'
ONE = '[fields]\npack_v = { from = "pack_v" }\n'


def mapped(folder: Path, text: str) -> Mapping:
    (folder / "m.toml").write_text(text)
    return load_mapping(folder / "m.toml")


def test_cells_count_from_zero_and_extras_bring_their_unit_and_step(tmp_path: Path) -> None:
    mapping = mapped(
        tmp_path,
        HEAD
        + ONE
        + 'cell_v = { from = "cell_v[{}]", count = 3 }\n"extra.ah" = { from = "extra.remaining_ah" }\n'
        + '"extra.bits" = { from = "extra.alarm_raw", unit = "flags", resolution = 2 }\n'
        + '[alarms]\n"low_soc:warning" = "alarm.cell_under_voltage"\n',
    )
    names = {target.name: target.signal for target in mapping.targets}
    assert names["cell_v[2]"] == "cell_v[2]" and names["alarm.low_soc:warning"] == "alarm.cell_under_voltage"
    ah, bits = mapping.layout.extras
    assert (ah.name, ah.unit, ah.step) == ("ah", "Ah", Resolution(1, 3))
    assert (bits.unit, bits.step) == ("flags", Resolution(2, 0))
    assert mapping.spoken is not None and mapping.spoken.protocol.name == "jbd" and mapping.dbc is None


def test_the_shipped_sample_names_what_its_language_says() -> None:
    mapping = load_mapping(SAMPLES / "mapping-bms.toml")
    assert mapping.spoken is not None and (mapping.layout.cells, mapping.layout.temps) == (16, 2)


WRONG = {
    "no such language": ('protocol = "jdb"\n' + ONE, ["m.toml", '"jdb"', "perhaps jbd"]),
    "two kinds": (HEAD + 'dbc = "x.dbc"\n' + ONE, ["must say what the names mean"]),
    "vehicle alone": ('vehicle = "leaf"\ndbc = "x.dbc"\n' + ONE, ["vehicle", "leave it out"]),
    "vehicle of none": (HEAD + 'vehicle = "leaf"\n' + ONE, ["vehicle", "has no meaning"]),
    "no such name": (
        HEAD + '[fields]\nsoc_bms = { from = "soc" }\n',
        ["[fields] soc_bms", '"soc" is nothing that jbd says', "did you mean soc_bms"],
    ),
    "an array without a place": (
        HEAD + '[fields]\ncell_v = { from = "cell_v" }\n',
        ['"cell_v" is nothing', "cell_v[0]"],
    ),
    "a text": (HEAD + '[fields]\n"extra.hw" = { from = "extra.hw_version" }\n', ["is a text", "leave it out"]),
    "no such alarm": (
        HEAD + ONE + '[alarms]\nlow_soc = "alarm.low_sok"\n',
        ["[alarms] low_soc", "nothing that jbd says"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_mapping_is_one_sentence_with_file_key_and_fix(tmp_path: Path, case: str) -> None:
    text, parts = WRONG[case]
    with pytest.raises(ConfigError) as caught:
        mapped(tmp_path, text)
    assert all(part in str(caught.value) for part in parts), caught.value


def test_parts_become_fields_with_their_reasons_spans_and_whole_bit_sets(tmp_path: Path) -> None:
    mapping = mapped(
        tmp_path,
        HEAD + '[fields]\ncurrent_a = { from = "current_a", scale = -1 }\ntemp_c = { from = "temp_c[{}]", count = 2 }\n'
        'balancing = { from = "balancing" }\ncharge_mos = { from = "charge_mos" }\n"extra.x" = { from = "cycles" }\n',
    )
    decoder = PartDecoder(mapping)
    bits = 1 << 95 | 1
    fields = decoder.decode(
        [
            (
                1,
                Part(
                    kind="a", values={"current_a": 5.0, "temp_c[0]": 0.0, "temp_c[1]": None}, quality={"temp_c[1]": "x"}
                ),
            ),
            (2, Part(kind="b", values={"current_a": -7.0, "balancing": bits, "charge_mos": False, "cycles": None})),
            (3, Part(kind="c", values={"pack_v": 1.0})),
        ]
    )
    assert fields.newest["current_a"] == (7.0, 2, None) and fields.spans["current_a"] == (-5.0, 7.0)
    assert fields.newest["temp_c[0]"] == (0.0, 1, None) and fields.newest["temp_c[1]"] == (None, 1, "x")
    assert fields.newest["balancing"] == (bits, 2, None) and fields.newest["charge_mos"] == (0.0, 2, None)
    assert fields.newest["extra.x"] == (None, 2, "absent")
    assert (decoder.parts, decoder.skipped, fields.heard) == (3, 1, True)
    assert decoder.decode([(4, Part(kind="c", values={"pack_v": 1.0}))]).heard is False
