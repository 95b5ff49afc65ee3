"""The whole edge with the model that ships stays small, also while a new model is tried out."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.bench_edge_model import PROBE_MB, STEADY_MB, fits, measure, ring
from fakes import bundles

pytestmark = pytest.mark.slow


def test_agent_and_inference_stay_within_their_memory_and_a_probe_too(tmp_path: Path) -> None:
    steady, probing, _, _ = measure(tmp_path, 5.0)
    print(f"\nsteady {steady}\nprobe  {probing}")
    assert steady.processes == 2 and fits(steady, STEADY_MB)
    assert probing.processes == 3 and fits(probing, PROBE_MB)


def test_a_model_that_takes_all_it_may_harms_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "_HUGE", 14_000_000)  # floats: what is left of the process's 128 MB
    greedy = bundles.make_bundle(2, "greedy", defect="memory")
    with ring(tmp_path) as made:
        first = made.publish(bundles.make_bundle())
        made.watch(lambda: made.proven(first), 0.2)
        name = made.publish(greedy)
        most = made.watch(lambda: made.proven(name), 0.01)
    print(f"\n{most}")
    assert most.child_rss > 100 and fits(most, PROBE_MB)
