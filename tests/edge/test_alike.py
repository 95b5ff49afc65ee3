"""Which packs of a line are one: two that look alike are never one in silence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.doctor.alike import DOUBT, OTHER, SAME, each_once, likeness
from edge.doctor.found import Pack
from edge.propose.serial import Here, open_questions, propose_serial
from firmware_bridge.protocol import Part, Value
from firmware_bridge.shelf import protocol

AT_REST: dict[str, Value] = {
    "pack_v": 52.8, "current_a": -12.3, "soc_bms": 0.62, "cycles": 3.0, "extra.remaining_ah": 62.0,
    "extra.nominal_ah": 100.0, "extra.full_ah": 100.0, "temp_c[0]": 22.0, "temp_c[1]": 22.5,
    **{f"cell_v[{i}]": 3.300 + 0.001 * (i % 2) for i in range(16)},
}  # fmt: skip
HERE = Here(device="box", port="/dev/ttyUSB0", url="", page_port=5002, metrics_port=9100)
SEPLOS = protocol("seplos_v2")


def told(address: int | None, **values: Value) -> Pack:
    pack = Pack(SEPLOS, SEPLOS.rate, address, was_asked=True)
    names = {name.replace("__", "."): value for name, value in values.items()}
    pack.take(Part(kind="telemetry", values={**AT_REST, **names}))
    return pack


APART = {
    "just the same": ({}, SAME),
    "a current that moves": ({"current_a": -12.6}, SAME),
    "a cell that moves by 2 mV": ({"cell_v[3]": 3.303}, SAME),
    "SoC of the reviewer's bank": ({"soc_bms": 0.55, "current_a": -10.9, "temp_c[0]": 24.0}, OTHER),
    "only SoC": ({"soc_bms": 0.60}, OTHER),
    "only what is left": ({"extra.remaining_ah": 58.0}, OTHER),
    "only a temperature": ({"temp_c[1]": 24.0}, OTHER),
    "another count of cycles": ({"cycles": 4.0}, OTHER),
    "a cell at 20 mV from it": ({"cell_v[3]": 3.321}, OTHER),
    "a sensor that the other does not have": ({"temp_c[1]": None}, OTHER),
    "only another current": ({"current_a": -10.9}, DOUBT),
    "one step of the SoC": ({"soc_bms": 0.63}, DOUBT),
    "a degree": ({"temp_c[0]": 23.0}, DOUBT),
}


@pytest.mark.parametrize("case", APART)
def test_whether_two_readings_are_of_one_pack(case: str) -> None:
    """Two packs of a bank with equal cells and as many cycles were one, whatever else they said: one was hidden."""
    values, verdict = APART[case]
    assert likeness(told(2, **values), told(1), to_each=False) == verdict  # type: ignore[arg-type]
    assert likeness(told(1), told(2, **values), to_each=False) == verdict  # type: ignore[arg-type]


def test_two_packs_of_a_bank_are_two() -> None:
    packs = each_once([told(1), told(2, soc_bms=0.55, current_a=-10.9)], 16)
    assert [pack.address for pack in packs] == [1, 2] and not any(map(open_questions, packs))


def test_in_doubt_both_are_kept_and_it_is_asked() -> None:
    packs = each_once([told(1), told(2, current_a=-10.9)], 16)
    assert [pack.address for pack in packs] == [1, 2]
    proposal = propose_serial(packs, HERE)
    question = "address 2 says nearly the same as address 1: are they two packs? Else take this [[source]] out."
    assert ("edge.toml address", question) in proposal.questions and open_questions(packs[1]) == [question]
    assert proposal.files["edge.toml"].count("[[source]]\n") == 2
    assert "# QUESTION: address 2 says nearly" in proposal.files["edge.toml"]


def test_one_that_says_just_the_same_at_another_address_is_one_and_it_is_asked() -> None:
    packs = each_once([told(1), told(2), told(5)], 16)
    (pack,) = packs
    assert pack.doubles == [2, 5]
    text = propose_serial(packs, HERE).files["edge.toml"]
    assert "# QUESTION: address 2 and 5 says just the same as address 1" in text
    assert "2 and 5" in open_questions(pack)[0]


def test_one_that_answers_to_every_address_is_one_without_a_question() -> None:
    bank = [told(at, current_a=-12.0 - at / 10, soc_bms=0.62 + 0.01 * (at > 8)) for at in range(16)]
    (pack,) = each_once(bank, 16)
    assert open_questions(pack) == []


def test_sixteen_packs_are_not_one() -> None:
    assert len(each_once([told(at, soc_bms=0.1 + 0.05 * at) for at in range(16)], 16)) == 16


def test_packs_that_tell_less_than_four_cells_are_one_only_if_all_is_the_same() -> None:
    few = [replace(told(at), values={"pack_v": 12.0 + at}) for at in (1, 2)]
    assert likeness(few[0], few[1], to_each=False) == OTHER
