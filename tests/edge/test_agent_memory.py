"""The whole edge with the model that ships stays small, also while a new model is tried out."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.bench_edge_model import PROBE_MB, STEADY_MB, fits, measure

pytestmark = pytest.mark.slow


def test_agent_and_inference_stay_within_their_memory_and_a_probe_too(tmp_path: Path) -> None:
    steady, probing, _, _ = measure(tmp_path, 5.0)
    print(f"\nsteady {steady}\nprobe  {probing}")
    assert steady.processes == 2 and fits(steady, STEADY_MB)
    assert probing.processes == 3 and fits(probing, PROBE_MB)
