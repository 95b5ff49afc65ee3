"""mapping.toml: the format's promises, and one sentence for each way to get it wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.config_sources import SAMPLES
from edge.dbc.load import load
from edge.decode import Decoder
from edge.mapping import Mapping, load_mapping
from shared.errors import ConfigError
from shared.fields import resolution

HEAD = 'dbc = "packtwin.dbc"\n'


def mapped(tmp_path: Path, text: str) -> Mapping:
    path = tmp_path / "mapping.toml"
    path.write_text(text)
    return load_mapping(path)


def test_the_shipped_mapping_fits_the_shipped_dbc() -> None:
    mapping = load_mapping(SAMPLES / "mapping.toml")
    assert mapping.dbc is not None
    Decoder(mapping, load(mapping.dbc))
    assert (mapping.layout.cells, mapping.layout.temps, mapping.pack.series) == (96, 16, 96)
    assert dict(mapping.layout.scalars)["pack_v"] == resolution(0.01)


def test_a_pattern_and_a_list_fill_positions_in_order(tmp_path: Path) -> None:
    text = (
        HEAD + '[fields]\ncell_v = { from = "M.C{:03d}_V", first = 5, count = 3 }\ntemp_c = { from = ["M.A", "M.B"] }\n'
    )
    mapping = mapped(tmp_path, text)
    assert [(t.name, t.signal) for t in mapping.targets] == [
        ("cell_v[0]", "M.C005_V"),
        ("cell_v[1]", "M.C006_V"),
        ("cell_v[2]", "M.C007_V"),
        ("temp_c[0]", "M.A"),
        ("temp_c[1]", "M.B"),
    ]


def test_a_bit_set_of_one_signal_has_room_for_every_cell(tmp_path: Path) -> None:
    text = HEAD + '[fields]\nbalancing = { from = "M.Bits" }\ncell_v = { from = "M.C{}", count = 61 }\n'
    assert mapped(tmp_path, text).layout.balancing_words == 3


WRONG = {
    "unknown field": ('[fields]\npack_vv = { from = "M.S" }\n', ["pack_vv", "did you mean pack_v", "extra.pack_vv"]),
    "unknown key": ('[fields]\npack_v = { from = "M.S", scael = 2 }\n', ["scael", "did you mean scale"]),
    "no from": ("[fields]\npack_v = { scale = 2 }\n", ["from", "missing"]),
    "list for a scalar": ('[fields]\npack_v = { from = ["M.A", "M.B"] }\n', ["only cell_v, temp_c and balancing"]),
    "pattern without a place": ('[fields]\ncell_v = { from = "M.C", count = 3 }\n', ["{:03d}"]),
    "state without values": ('[fields]\nstate = { from = "M.S" }\n', ["values", "missing"]),
    "unknown state": ('[fields]\nstate = { from = "M.S", values = { 0 = "flying" } }\n', ["flying", "charge_dc"]),
    "resolution 0": ('[fields]\npack_v = { from = "M.S", resolution = 0 }\n', ["resolution", "> 0"]),
    "resolution of a switch": ('[fields]\ncharge_mos = { from = "M.S", resolution = 1 }\n', ["no meaning"]),
    "unknown alarm": (
        '[fields]\npack_v = { from = "M.S" }\n[alarms]\ninsulaton = "M.S"\n',
        ["did you mean insulation"],
    ),
    "unknown chemistry": ('[pack]\nchemistry = "lead"\n[fields]\npack_v = { from = "M.S" }\n', ["chemistry", "lfp"]),
    "bad extra": ('[fields]\n"extra.a b" = { from = "M.S" }\n', ["extra.a b", "not a name"]),
    "nothing mapped": ("[fields]\n", ["empty"]),
    "not a table": ("[fields]\npack_v = 3\n", ["must be a table"]),
    "a table that does not exist": ('[fields]\npack_v = { from = "M.S" }\n[alarm]\n', ["alarm", "did you mean alarms"]),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_one_sentence_that_names_it(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as raised:
        mapped(tmp_path, HEAD + text)
    for word in ["mapping.toml", *words]:
        assert word in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_mapping_needs_a_dbc_or_a_csv_and_not_both(tmp_path: Path) -> None:
    for head in ("", f'{HEAD}[csv]\ntime = "t"\n'):
        with pytest.raises(ConfigError, match="must say what the names mean"):
            mapped(tmp_path, head + '[fields]\npack_v = { from = "S" }\n')


def test_the_kinds_of_a_mapping_are_named_each_once(tmp_path: Path) -> None:
    """It said "dbc , protocol, ..." and "known here: dbc, vehicle, protocol, protocol"."""
    with pytest.raises(ConfigError) as error:
        mapped(tmp_path, HEAD + 'protocol = "jbd"\n[mqtt]\n[fields]\npack_v = { from = "M.S" }\n')
    assert str(error.value).endswith(
        "mapping.toml must say what the names mean: give dbc, protocol, [csv] or [mqtt], one of the four"
    )
    with pytest.raises(ConfigError) as error:
        mapped(tmp_path, HEAD + 'zzz = 1\n[fields]\npack_v = { from = "M.S" }\n')
    assert "known here: dbc, csv, vehicle, protocol, mqtt, isotp, pack, fields, alarms, counter" in str(error.value)


def test_a_signal_that_the_dbc_has_not_is_told_with_the_nearest_names(tmp_path: Path) -> None:
    mapping = mapped(tmp_path, HEAD + '[fields]\npack_v = { from = "BMS_PackElec.PackVoltag" }\n')
    assert mapping.dbc is not None
    with pytest.raises(ConfigError, match=r"did you mean BMS_PackElec\.PackVoltage"):
        Decoder(mapping, load(mapping.dbc))


def test_a_bad_or_missing_dbc_is_one_sentence(tmp_path: Path) -> None:
    bad = tmp_path / "bad.dbc"
    bad.write_text("this is no DBC {")
    with pytest.raises(ConfigError, match="is not a DBC") as raised:
        load(bad)
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match="does not exist"):
        load(tmp_path / "none.dbc")
