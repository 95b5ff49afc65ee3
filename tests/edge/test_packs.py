"""The way of the Samples of one step: measured first, stored whatever happens to the measuring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from fakes.outbox import Machine
from fakes.running import write_pasts

from edge.config import load_config
from edge.config_sources import SAMPLES
from edge.lane import Lane
from edge.mapping import PackFacts, load_mapping
from edge.outbox.records import Measured, OutboxError
from edge.packs import Packs
from shared.block import pack_row
from shared.errors import ConfigError
from shared.features import NAMES
from shared.records import Sample, Session

MAPPING = load_mapping(SAMPLES / "mapping.toml")
PACK = "BATTERY_001"


class Rig:
    """A device with one pack, its outbox and its features."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.machine = Machine(folder)
        self.outbox = self.machine.start()

    def packs(self, past: Path | None = None, facts: PackFacts | None = None) -> Packs:
        told = f'past = "{past}"\n' if past else ""
        (self.folder / "edge.toml").write_text(
            f'device = "d"\ndata_dir = "flash"\nhot_dir = "memory"\n'
            f'[[source]]\npack_id = "{PACK}"\nchannel = "x"\nmapping = "mapping.toml"\n{told}'
        )
        config = load_config(self.folder / "edge.toml", {})
        mapping = MAPPING if facts is None else replace(MAPPING, pack=facts)
        lane = cast(Lane, SimpleNamespace(config=config.sources[0], mapping=mapping))
        return Packs(config, [lane], self.outbox)

    def samples(self, n: int) -> list[Measured]:
        """A drive and a fast charge in turn, together a cycle in 70 Samples, one a minute."""
        now_ns = self.machine.clock.forward(60.0)
        current_a, state = ((-360.0, "drive"), (360.0, "charge_dc"))[n // 35 % 2]
        if n % 35 >= 30:
            current_a, state = 0.0, "park"
        sample = Sample(
            pack_id=PACK,
            seq=0,
            mono_ns=now_ns,
            t_ns=self.machine.clock.true_t_ns,
            current_a=current_a,
            state=state,
            soh_bms=0.9,
            cycles=round(n / 70, 1),
            cell_v=(3.8,) * 96,
            temp_c=(25.0,) * 16,
        )
        row, quality = pack_row(sample, MAPPING.layout)
        return [
            Measured(
                pack_id=PACK,
                layout=MAPPING.layout,
                row=row.tobytes(),
                mono_ns=now_ns,
                t_ns=sample.t_ns,
                quality=quality,
                alarms=(),
            )
        ]

    def stored(self) -> list[Any]:
        """All records but Samples that the outbox holds."""
        taken = self.outbox.take(10_000, newest=False)
        return [] if taken is None else list(taken.batch.singles())


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.outbox.close()


def test_a_session_that_ends_goes_up_once_beside_the_samples(rig: Rig) -> None:
    packs = rig.packs()
    for n in range(300):
        packs.keep(rig.samples(n))
    sessions = [record for record in rig.stored() if isinstance(record, Session)]
    assert 2 <= len(sessions) <= 4 and len({session.mono_ns for session in sessions}) == len(sessions)
    assert rig.outbox.books().stored == 300
    (question,) = packs.questions(1, 2)
    assert question.features is not None and question.features[NAMES.index("cycles")] == pytest.approx(4.3)
    assert (question.pack_id, question.chemistry, question.mono_ns, question.t_ns) == (PACK, "nmc", 1, 2)


def test_a_past_answers_at_once_and_its_label_stays(rig: Rig) -> None:
    past = write_pasts(rig.folder / "pasts", [PACK]) / f"{PACK}.jsonl"
    for _ in range(2):  # the second time it was taken in before
        packs = rig.packs(past)
        (question,) = packs.questions(1, None)
        assert question.features is not None and question.features[NAMES.index("cycles")] == 66.0
        assert packs.simulated == {PACK}


def test_without_a_session_or_the_facts_there_are_no_features(rig: Rig) -> None:
    (question,) = rig.packs().questions(1, None)
    assert (question.features, question.reason) == (None, "no_features")
    packs = rig.packs(facts=PackFacts(chemistry="nmc"))
    packs.keep(rig.samples(0))
    (question,) = packs.questions(1, None)
    assert (question.features, question.reason) == (None, "pack_facts")
    assert rig.outbox.books().stored == 1


def test_a_bug_in_the_features_costs_no_sample(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    packs = rig.packs()

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(packs.store, "step", broken)
    for n in range(3):
        packs.keep(rig.samples(n))
    assert rig.outbox.books().stored == 3
    assert packs.questions(1, None)[0].reason == "feature_error"
    assert sum("no more features" in record.message for record in caplog.records) == 1


def test_an_outbox_that_takes_nothing_costs_no_session(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    packs = rig.packs()
    put, full = rig.outbox.put, True

    def refuse(records: Any, lossy: object) -> Any:
        if full:
            raise OutboxError("full")
        return put(records)

    monkeypatch.setattr(rig.outbox, "put", refuse)
    for n in range(200):
        with pytest.raises(OutboxError):
            packs.keep(rig.samples(n))
    full = False
    packs.keep(rig.samples(200))
    packs.keep(rig.samples(201))
    assert sum(isinstance(record, Session) for record in rig.stored()) == 1


def test_a_past_of_another_pack_is_one_sentence(rig: Rig) -> None:
    past = write_pasts(rig.folder / "pasts", ["OTHER"]) / "OTHER.jsonl"
    with pytest.raises(ConfigError, match="OTHER"):
        rig.packs(past)


def test_the_state_is_kept_before_the_sample_is_stored(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    packs, order = rig.packs(), []
    step, put = packs.store.step, rig.outbox.put
    monkeypatch.setattr(packs.store, "step", lambda *given: (order.append("features"), step(*given))[1])
    monkeypatch.setattr(rig.outbox, "put", lambda records, lossy=(): (order.append("outbox"), put(records))[1])
    packs.keep(rig.samples(0))
    assert order == ["features", "outbox"]
    assert np.isnan(packs.store.vector(PACK).values[NAMES.index("r_step_mohm")])
