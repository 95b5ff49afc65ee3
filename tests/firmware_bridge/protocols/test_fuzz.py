"""No bytes, however wrong, break a decoder, hold it up or fill the memory; `make fuzz` runs ten times as many."""

from __future__ import annotations

import random
from pathlib import Path

import bms_fuzz
import pytest
from bms_cases import Case, cases
from bms_fuzz import Fuzz, Result

EVERY = cases()
FEW, MANY = 2_000, 100_000


def check(result: Result) -> None:
    print(bms_fuzz.table([result]))
    assert result.ok, bms_fuzz.table([result])


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_a_few_thousand_frames_of_a_known_seed(case: Case) -> None:
    fuzz = Fuzz(case, 1)
    check(fuzz.run(FEW))
    assert fuzz.result.parts > FEW / 100, "the changed frames are hardly ever good: nothing is fuzzed behind the check"


@pytest.mark.slow
@pytest.mark.parametrize("case", EVERY, ids=str)
def test_a_hundred_thousand_frames_a_decoder_of_a_new_seed(case: Case) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"python tests/bms_fuzz.py --only {case.name} --frames {MANY} --seed {seed}")
    check(Fuzz(case, seed).run(bms_fuzz.share_of(case, MANY)))


def test_the_table_goes_between_the_marks_of_the_page_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "fuzz.md"
    page.write_text(f"before\n{bms_fuzz.BEGIN}old\n{bms_fuzz.END}after\n")
    bms_fuzz.put(page, "new\n")
    assert page.read_text() == f"before\n{bms_fuzz.BEGIN}new\n{bms_fuzz.END}after\n"
