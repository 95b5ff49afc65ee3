"""The outbox's promises, one test each; killed processes and torn files have their own modules."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.cloud import FakeCloud
from fakes.outbox import LAYOUT, Machine, event, everything, measured

from edge.outbox.box import Outbox
from edge.outbox.records import OutboxError, OutboxFull
from shared.errors import ConfigError
from shared.records import Estimate, Gap, Receipt, Rejected
from shared.wire import decode_batch, encode_batch


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def drain(outbox: Outbox, cloud: FakeCloud, *, undated: bool = True, limit: int = 100) -> None:
    while (taken := outbox.take(limit, newest=False, undated=undated)) is not None:
        outbox.settle(taken, cloud.receive(decode_batch(encode_batch(taken.batch))))


def flash_files(machine: Machine) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in machine.flash.iterdir()}


def test_records_come_out_as_they_went_in(machine: Machine) -> None:
    outbox = machine.start()
    first = measured(143_000_000_000, t_ns=7)
    estimate = Estimate(pack_id="BATTERY_001", seq=0, mono_ns=3, soc=0.5)
    seqs = outbox.put([first, event(2), estimate])
    assert list(seqs) == [0, 1, 2]
    taken = outbox.take(10, newest=True, undated=True)
    assert taken is not None
    (sample,) = taken.batch.blocks[0].samples()
    assert (sample.pack_id, sample.seq, sample.mono_ns, sample.t_ns) == ("BATTERY_001", 0, 143_000_000_000, 7)
    assert sample.quality == {"temp_c[1]": "stale"}
    assert sample.alarms == ("low_soc:warning",)
    assert taken.batch.blocks[0].layout == LAYOUT
    assert [e.seq for e in taken.batch.events] == [1]
    assert [e.soc for e in taken.batch.estimates] == [0.5]


def test_a_sample_that_did_not_see_every_frame_has_a_gap_beside_it_that_says_so(machine: Machine) -> None:
    outbox = machine.start()
    records = [event(1), measured(5, t_ns=7, pack_id="A"), measured(5, t_ns=7, pack_id="B")]
    assert list(outbox.put(records, {"B"})) == [0, 1, 2, 3]
    assert list(outbox.put([measured(6, pack_id="A")], {"B"})) == [4]  # of B nothing was measured
    taken = outbox.take(10, newest=True, undated=True)
    assert taken is not None
    gap = Gap(
        seq=3, mono_ns=5, t_ns=7, of_boot=outbox.boot, first_seq=2, last_seq=2, cause="bus_overflow", stored=((2, 2),)
    )
    assert taken.batch.gaps == (gap,)
    books = outbox.books()
    assert (books.stored, books.imbalance()) == (3, (0, 0))


def test_a_block_on_flash_holds_the_same_as_the_rows(machine: Machine) -> None:
    outbox = machine.start()
    records = [measured(n * 10**9, t_ns=n, pack_id=f"P{n % 3}") for n in range(100, 150)]
    outbox.put(records)
    before = outbox.take(100, newest=True)
    assert before is not None
    outbox.release(before)
    machine.clock.forward(60)
    assert outbox.flush(machine.clock.mono_ns())
    after = outbox.take(100, newest=False)
    assert after is not None
    assert [list(b.samples()) for b in after.batch.blocks] == [list(b.samples()) for b in before.batch.blocks]


def test_taken_records_are_not_handed_out_again_until_released(machine: Machine) -> None:
    outbox = machine.start()
    machine.run(30)
    outbox.put([measured(machine.clock.forward(1))])
    live = outbox.take(100, newest=True, undated=True)
    backlog = outbox.take(100, newest=False, undated=True)
    assert live is not None and backlog is not None
    assert len(live.batch) + len(backlog.batch) == 31
    assert outbox.take(100, newest=False, undated=True) is None
    outbox.release(backlog)
    again = outbox.take(100, newest=False, undated=True)
    assert again is not None and again.batch.seqs().tolist() == backlog.batch.seqs().tolist()


def test_rows_flushed_while_they_are_under_way_are_settled_where_they_are(machine: Machine) -> None:
    outbox = machine.start()
    outbox.put([measured(n * 10**9) for n in range(10)])
    taken = outbox.take(5, newest=True, undated=True)
    machine.clock.forward(20)
    assert outbox.flush(machine.clock.mono_ns())
    assert taken is not None
    assert outbox.settle(taken, everything(outbox)).acked == 5
    books = outbox.books()
    assert (books.acked, books.pending, books.imbalance()) == (5, 5, (0, 0))


def test_nothing_is_written_to_flash_while_the_cloud_acknowledges_in_time(machine: Machine) -> None:
    outbox = machine.start()
    machine.clock.learn(machine.clock.true_t_ns, machine.clock.now_ns, machine.clock.now_ns)
    for second in range(1, 1860):
        machine.run(1, packs=3)
        if second % 5 == 0:
            taken = outbox.take(600, newest=True)
            assert taken is not None
            outbox.settle(taken, everything(outbox))
        if second == 60:
            before = flash_files(machine)
    assert flash_files(machine) == before
    assert outbox.books().acked == 1855 * 3


def test_an_economical_mode_keeps_rows_off_flash_for_longer(machine: Machine) -> None:
    outbox = machine.start()
    outbox.flush_s = 90.0
    machine.run(80)
    assert outbox._cold.samples == 0
    machine.run(12)
    assert outbox._cold.samples > 80


def test_rejected_records_move_to_a_table_with_the_reason(machine: Machine) -> None:
    outbox = machine.start()
    machine.run(12)
    taken = outbox.take(100, newest=False, undated=True)
    assert taken is not None
    receipt = Receipt(accepted=((0, 3),), rejected=(Rejected(4, 6, "too_old"),), t_ns=1)
    settled = outbox.settle(taken, receipt)
    assert (settled.acked, settled.refused) == (4, 3)
    books = outbox.books()
    assert (books.acked, books.refused, books.pending, books.imbalance()) == (4, 3, 5, (0, 0))
    outbox.close()
    ((first, last, reason, body),) = (
        sqlite3.connect(machine.flash / "outbox.sqlite")
        .execute("SELECT first_seq, last_seq, reason, body FROM reject")
        .fetchall()
    )
    assert (first, last, reason) == (4, 6, "too_old")
    assert decode_batch(body).seqs().tolist() == [4, 5, 6]


def test_a_receipt_says_nothing_about_what_was_not_in_the_batch(machine: Machine) -> None:
    outbox = machine.start()
    outbox.put([measured(n * 10**9) for n in range(4)])
    taken = outbox.take(2, newest=True, undated=True)
    assert taken is not None
    assert outbox.settle(taken, everything(outbox)).acked == 2
    assert outbox.settle(taken, everything(outbox)).acked == 0
    assert outbox.books().pending == 2


def test_a_backlog_goes_oldest_boot_first_and_in_order(machine: Machine) -> None:
    cloud = FakeCloud()
    boots = []
    for _ in range(3):
        boots.append(machine.start().boot)
        machine.run(25)
        machine.kill()
    outbox = machine.start()
    drain(outbox, cloud, limit=60)
    order = [batch.boot for batch in cloud.batches]
    assert sorted(set(order), key=order.index) == [*boots, outbox.boot]
    for boot in boots:
        sent = [seq for batch in cloud.batches if batch.boot == boot for block in batch.blocks for seq in block.seq]
        assert sent == sorted(sent)
        assert len(sent) == 25


def test_undated_records_wait_for_the_clock_and_are_dated_once(machine: Machine) -> None:
    cloud = FakeCloud()
    outbox = machine.start()
    machine.run(15)
    machine.kill()
    outbox = machine.start()
    machine.run(5)
    assert outbox.take(100, newest=False) is None
    outbox.date(1_000)
    outbox.date(2_000)
    drain(outbox, cloud, undated=False)
    assert sum(map(len, cloud.rows.values())) == 20
    assert all(t == mono + 1_000 for rows in cloud.rows.values() for _, mono, t in rows.values())


def test_records_of_a_boot_that_will_never_be_dated_go_up_without_time(machine: Machine) -> None:
    cloud = FakeCloud()
    boot = machine.start().boot
    machine.run(30)
    machine.power_cut()
    outbox = machine.start()
    outbox.date(1_000)
    drain(outbox, cloud, undated=False)
    assert len(cloud.rows[boot]) >= 20
    assert all(t < 0 for _, _, t in cloud.rows[boot].values())


def test_the_offset_survives_a_power_cut_for_what_was_on_flash(machine: Machine) -> None:
    cloud = FakeCloud()
    outbox = machine.start()
    machine.run(15)
    outbox.date(1_000)
    machine.power_cut()
    drain(machine.start(), cloud, undated=False)
    assert all(t == mono + 1_000 for rows in cloud.rows.values() for _, mono, t in rows.values())


@pytest.mark.parametrize("tmpfs", [True, False])
def test_the_byte_cap_evicts_the_oldest_samples_and_tells_which(tmp_path: Path, tmpfs: bool) -> None:
    machine, cloud = Machine(tmp_path, max_bytes=1 << 20, flush_s=4, tmpfs=tmpfs), FakeCloud()
    outbox = machine.start()
    outbox.put([event(1)])
    rows = [measured(machine.clock.forward(0.01), t_ns=1, noisy=True) for _ in range(500)]
    for _ in range(80):
        outbox.put(rows)
        machine.clock.forward(5)
        outbox.flush(machine.clock.mono_ns())
        assert outbox.books().hot_bytes + outbox.books().cold_bytes < 1.02 * (1 << 20)
    books = outbox.books()
    assert books.evicted > 1000
    assert books.imbalance() == (0, 0)
    drain(outbox, cloud)
    assert outbox.books().pending == 0
    assert any(record.id == "e1" for record in cloud.others[outbox.boot].values() if not isinstance(record, Gap))
    assert len(cloud.missing(outbox.boot)) == books.evicted
    assert not cloud.missing(outbox.boot) & set(cloud.rows[outbox.boot])
    assert len(cloud.gaps()) < 10, "adjacent tombstones are one"


def test_a_tombstone_that_was_sent_does_not_change_any_more(tmp_path: Path) -> None:
    """A changed gap under a seq that the cloud already has would be taken for a repetition, and the loss untold."""
    machine, cloud = Machine(tmp_path, max_bytes=1 << 20, flush_s=4), FakeCloud()
    outbox = machine.start()
    rows = [measured(machine.clock.forward(0.01), t_ns=1, noisy=True) for _ in range(500)]
    for round_ in range(60):
        outbox.put(rows)
        machine.clock.forward(5)
        outbox.flush(machine.clock.mono_ns())
        if round_ % 10 == 9:
            while (taken := outbox.take(10_000, newest=False)) is not None:
                if not taken.batch.gaps:
                    continue  # stays under way: it may not be evicted
                cloud.receive(taken.batch)  # the receipt is lost
                break
            outbox._flights._flights.clear()
    drain(outbox, cloud)
    assert len(cloud.missing(outbox.boot)) + len(cloud.rows[outbox.boot]) == outbox.books().stored


def test_a_replay_that_runs_again_adds_nothing(machine: Machine) -> None:
    cloud = FakeCloud()
    records = [measured(n * 10**9, t_ns=n) for n in range(300)]
    outbox = machine.start(boot=77)
    outbox.put(records[:100])
    outbox.put(records[100:200])
    taken = outbox.take(50, newest=False)
    assert taken is not None
    outbox.settle(taken, cloud.receive(taken.batch))
    machine.kill()
    outbox = machine.start(boot=77)
    for at in range(0, 300, 60):
        outbox.put(records[at : at + 60])
    assert outbox.books().imbalance() == (0, 0)
    assert (outbox.books().filtered, outbox.books().stored) == (200, 300)
    drain(outbox, cloud)
    outbox.close()
    outbox = machine.start(boot=77)
    outbox.put(records)
    assert outbox.take(10, newest=False) is None
    assert sorted(cloud.rows[77]) == list(range(300))
    assert [cloud.rows[77][n][2] for n in range(300)] == list(range(300))


def test_a_replay_cut_short_by_a_power_cut_is_completed(machine: Machine) -> None:
    cloud = FakeCloud()
    records = [measured(n * 10**9, t_ns=n) for n in range(300)]
    outbox = machine.start(boot=77)
    outbox.put(records[:150])
    machine.clock.forward(20)
    outbox.flush(machine.clock.mono_ns())
    outbox.put(records[150:200])
    machine.power_cut()
    outbox = machine.start(boot=77)
    outbox.put(records)
    drain(outbox, cloud)
    assert sorted(cloud.rows[77]) == list(range(300))
    assert cloud.gaps() == []
    assert outbox.books().imbalance() == (0, 0)


def test_after_a_clean_stop_a_power_off_costs_nothing(machine: Machine) -> None:
    cloud = FakeCloud()
    outbox = machine.start()
    boot = outbox.boot
    machine.run(14)
    acquired = outbox.books().acquired
    outbox.close()
    machine.power_cut()
    outbox = machine.start()
    assert (outbox.books().acquired, outbox.books().pending, outbox.books().lost) == (acquired, 14, 0)
    drain(outbox, cloud)
    assert len(cloud.rows[boot]) == 14
    assert not cloud.missing(boot)


def test_time_without_tmpfs_is_taken_over(tmp_path: Path) -> None:
    cloud, machine = FakeCloud(), Machine(tmp_path, tmpfs=False)
    first = machine.start().boot
    machine.run(5)
    machine.kill()
    machine.memory = tmp_path / "memory"
    outbox = machine.start()
    machine.run(5)
    drain(outbox, cloud)
    assert (len(cloud.rows[first]), len(cloud.rows[outbox.boot])) == (5, 5)
    assert outbox.books().imbalance() == (0, 0)
    assert outbox.books().acked == 10


def test_a_second_agent_on_the_same_folder_is_told_so(machine: Machine) -> None:
    machine.start()
    with pytest.raises(ConfigError, match="in use by another agent"):
        machine.start()


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "flash").write_text("a file")
    with pytest.raises(ConfigError, match="cannot hold the outbox"):
        Machine(tmp_path).start()


def test_a_hot_file_of_another_outbox_is_set_aside(tmp_path: Path) -> None:
    one, two = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    one.start()
    two.start()
    one.run(12)
    two.run(12)
    flushed = two.outbox._cold.samples
    one.kill()
    two.kill()
    two.memory = one.memory
    assert two.start().books().pending == flushed
    assert (tmp_path / "one" / "memory" / "outbox.other.sqlite").exists()


def test_a_full_hot_file_refuses_and_says_so(machine: Machine) -> None:
    machine.max_bytes = 1 << 20
    outbox = machine.start()
    with pytest.raises(OutboxFull):
        for n in range(1000):
            outbox.put([measured(n * 10**9) for _ in range(100)])
    books = outbox.books()
    assert books.rejected == 100
    assert books.imbalance() == (0, 0)
    machine.clock.forward(20)
    outbox.flush(machine.clock.mono_ns())
    outbox.put([measured(10**15)])
    assert outbox.books().imbalance() == (0, 0)
    seqs = outbox.take(10**6, newest=False, undated=True)
    assert seqs is not None and len(seqs.batch.seqs()) == books.stored, "a refused put leaves no hole"


@pytest.mark.parametrize("tmpfs", [True, False])
def test_a_disk_without_space_is_never_reported_as_stored(tmp_path: Path, tmpfs: bool) -> None:
    machine = Machine(tmp_path, tmpfs=tmpfs)
    outbox = machine.start()
    machine.run(3)
    cold = outbox._cold.store._db
    (pages,) = cold.execute("PRAGMA page_count").fetchone()
    cold.execute(f"PRAGMA max_page_count = {pages}")  # SQLITE_FULL, as a full disk gives it
    failures = 0
    for _ in range(40):
        now = machine.clock.forward(1)
        try:
            outbox.put([measured(now + n, noisy=True) for n in range(50)])
        except OutboxError:
            failures += 1
        try:
            outbox.flush(now)
        except OutboxError:
            failures += 1
        assert outbox.books().imbalance() == (0, 0)
    assert failures > 0
    cold.execute("PRAGMA max_page_count = 1000000")
    outbox.put([measured(machine.clock.forward(1))])
    machine.clock.forward(20)
    outbox.flush(machine.clock.mono_ns())
    cloud = FakeCloud()
    drain(outbox, cloud)
    books = outbox.books()
    assert len(cloud.rows[outbox.boot]) == books.stored == books.acked
    assert books.acquired == books.stored + books.rejected == 3 + 40 * 50 + 1


def test_what_could_never_be_sent_is_not_stored(machine: Machine) -> None:
    outbox = machine.start()
    good = measured(1)
    for bad in (replace(good, row=good.row[4:]), replace(good, quality={"pack_v": "tired"})):
        with pytest.raises(ValueError, match="BATTERY_001"):
            outbox.put([bad])
    assert list(outbox.put([good])) == [0]
