"""The model that ships: it fits what is made here today, and is made anew byte for byte."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cloud.training import export
from shared import bundle as bundles
from shared.bundle import HARDWARE, OUTPUTS
from shared.features import schema_id

ROOT = Path(__file__).parents[2]


def test_the_champion_is_small_and_fits_the_features_of_today() -> None:
    (path,) = (ROOT / "cloud" / "champion").glob("*.bundle")
    body = path.read_bytes()
    assert len(body) <= 500_000
    found = bundles.read(body)
    assert path.name == f"{found.manifest.model_id}{bundles.SUFFIX}"
    assert (found.manifest.feature_schema, found.manifest.hardware) == (schema_id(), HARDWARE)
    assert found.manifest.data["simulated"] is True
    for name in OUTPUTS:
        said = export.run(found.onnx(name), found.golden.rows)
        golden = found.golden.outputs[name].astype(np.float64)
        allowed = export.CHANCE if name == "p_eol_100" else export.RELATIVE * np.maximum(np.abs(golden), 1.0)
        assert (np.abs(said - golden) <= allowed).all()


@pytest.mark.slow
def test_made_twice_in_two_processes_it_is_the_same_to_the_byte(tmp_path: Path) -> None:
    """`make champion` with fewer packs: nothing of it depends on the process, its hashes, the time or the folder."""
    for name in ("one", "two"):
        script = (
            f"import champion, pathlib; champion.PACKS = 100; champion.make(pathlib.Path({str(tmp_path / name)!r}))"
        )
        environment = {**os.environ, "PYTHONHASHSEED": str(len(name) + ord(name[0])), "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-c", script], cwd=ROOT / "deploy" / "local", env=environment, check=True)
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two and len(one) == 2
