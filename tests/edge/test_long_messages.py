"""Live and in a replay, messages of several frames say what `edge decode` says of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge.__main__ import main
from edge.dbc.load import load
from edge.decode import Decoder
from edge.mapping import load_mapping
from edge.sources.filters import filters_of
from firmware_bridge.frames import EXTENDED, REMOTE, FrameBatch
from firmware_bridge.j1939_tp import TRANSPORT_IDS, TRANSPORT_MASK
from shared.errors import ConfigError

UDS = (
    'VERSION ""\nBU_:\nBO_ 2028 Answer: 11 X\n SG_ Did : 23|16@0+ (1,0) [0|0] "" X\n'
    ' SG_ Soc : 64|8@1+ (0.5,0) [0|0] "%" X\nBO_ 256 Plain: 2 X\n SG_ Volt : 0|16@1+ (0.1,0) [0|0] "V" X\n'
)
MAPPING = """\
dbc = "uds.dbc"
isotp = ["7EC"]
[fields]
soc_bms = { from = "Answer.Soc", scale = 0.01 }
pack_v = { from = "Plain.Volt" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "uds.dbc").write_text(UDS)
    (tmp_path / "mapping.toml").write_text(MAPPING)
    return tmp_path


def decoder_of(folder: Path) -> Decoder:
    return Decoder(load_mapping(folder / "mapping.toml"), load(folder / "uds.dbc"))


def rows(*frames: tuple[int, int, str]) -> FrameBatch:
    return FrameBatch.of("can0", [(t_ns, can_id, bytes.fromhex(data)) for t_ns, can_id, data in frames])


def test_isotp_is_put_together_over_several_reads_beside_plain_frames(folder: Path) -> None:
    decoder = decoder_of(folder)
    first = decoder.decode(rows((1, 0x7EC, "100A620101010203"), (2, 0x100, "A00F")))
    assert first.newest == {"pack_v": (400.0, 2, None)} and first.heard
    second = decoder.decode(rows((3, 0x7EC, "2104A0060700AAAA")))
    assert second.newest == {"soc_bms": (0.8, 3, None)} and second.heard
    assert decoder.frames == 3 and not decoder.errors


def test_a_message_that_lost_a_frame_is_counted_and_says_nothing(folder: Path) -> None:
    decoder = decoder_of(folder)
    fields = decoder.decode(rows((1, 0x7EC, "100A620101010203"), (2, 0x7EC, "2204A0060700AAAA")))
    assert not fields.newest and decoder.errors == {"isotp_sequence": 1}


def test_a_message_that_is_too_short_for_its_signal_says_so(folder: Path) -> None:
    fields = decoder_of(folder).decode(rows((1, 0x7EC, "0362010100000000")))
    assert fields.newest == {"soc_bms": (None, 1, "short_frame")}


@pytest.mark.parametrize(
    ("line", "says"),
    {
        "no list": ('isotp = "7EC"', "must be a list"),
        "no id": ('isotp = ["XYZ"]', '"XYZ" is not an id in hex'),
    }.values(),
)
def test_ids_that_are_none_are_one_sentence(folder: Path, line: str, says: str) -> None:
    text = MAPPING.replace('isotp = ["7EC"]', line)
    (folder / "mapping.toml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        load_mapping(folder / "mapping.toml")


def test_a_replay_of_parameter_groups_that_came_by_bam(tmp_path: Path, shared_dir: Path) -> None:
    folder = shared_dir / "can" / "css-electronics"
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(
        f'dbc = "{folder / "tp_j1939.dbc"}"\n[fields]\n"extra.rpm" = {{ from = "EC1.EngineSpeedAtPoint5" }}\n'
    )
    log, out = folder / "j1939_tp_FCBF0606.MF4", tmp_path / "out.jsonl"
    assert main(["replay", str(log), "--mapping", str(mapping), "--pack", "A", "-o", str(out)]) == 0
    samples: list[dict[str, Any]] = [json.loads(line) for line in out.read_text().splitlines()]
    assert {sample["extra"]["rpm"] for sample in samples} - {None} == {
        1566.5
    }  # of the first channel; 1600.0 is on the other
    wanted = filters_of(load_mapping(mapping), load(folder / "tp_j1939.dbc"))
    assert set(wanted) >= {(can_id, TRANSPORT_MASK | REMOTE) for can_id in TRANSPORT_IDS}
    assert all(can_id & EXTENDED for can_id, _ in wanted)


@pytest.mark.parametrize("dbc", ["uds.dbc", "tp.dbc"])
def test_what_is_half_received_goes_on_from_a_snapshot(folder: Path, dbc: str) -> None:
    """A capture may begin in the middle of a message."""
    (folder / "tp.dbc").write_text('VERSION ""\nBU_:\nBO_ 2566841342 G: 10 X\n SG_ V : 64|16@1+ (0.1,0) [0|0] "V" X\n')
    text = {"uds.dbc": MAPPING, "tp.dbc": 'dbc = "tp.dbc"\n[fields]\npack_v = { from = "G.V" }\n'}[dbc]
    frames = {
        "uds.dbc": [(0x7EC, "100A620101010203"), (0x7EC, "2104A0060700AAAA")],
        "tp.dbc": [
            (EXTENDED | 0x1CECFFFE, f"200A0002FF{(2566841342 >> 8 & 0x3FFFF).to_bytes(3, 'little').hex()}"),
            (EXTENDED | 0x1CEBFFFE, "0100000000000000"),
            (EXTENDED | 0x1CEBFFFE, "0200A00FFFFFFFFF"),
        ],
    }[dbc]
    (folder / "mapping.toml").write_text(text)
    first, second = (Decoder(load_mapping(folder / "mapping.toml"), load(folder / dbc)) for _ in range(2))
    *begun, last = (rows((t_ns, can_id, data)) for t_ns, (can_id, data) in enumerate(frames))
    for batch in begun:
        assert not first.decode(batch).newest
    second.restore(json.loads(json.dumps(first.snapshot())))
    assert second.decode(last).newest == first.decode(last).newest != {}
