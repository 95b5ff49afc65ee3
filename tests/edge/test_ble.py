"""Bluetooth: what aiobmsble says as a Sample, that it is only imported where it is used, what is said without it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT, missing

from edge.config import load_config
from edge.decode_parts import PartDecoder
from edge.lanes import build_lanes
from edge.mapping import load_mapping
from edge.sources.ble import check_available
from edge.sources.ble_names import BLE, as_json, of_json, part_of
from shared.errors import ConfigError

sys.path.insert(0, str(ROOT / "deploy" / "local"))

import install

MAPPING = """protocol = "ble"
[fields]
pack_v = { from = "pack_v", resolution = 0.01 }
current_a = { from = "current_a", resolution = 0.01 }
soc_bms = { from = "soc_bms" }
cycles = { from = "cycles" }
cell_v = { from = "cell_v[{}]", count = 4 }
temp_c = { from = "temp_c[{}]", count = 3 }
charge_mos = { from = "charge_mos" }
discharge_mos = { from = "discharge_mos" }
"extra.remaining_ah" = { from = "extra.remaining_ah" }
[alarms]
other = "alarm.other"
"""
SAMPLE: dict[str, Any] = {
    "voltage": 15.6, "current": -2.87, "battery_level": 88, "battery_health": 97, "cycles": 42, "cycle_charge": 4.98,
    "design_capacity": 5, "cell_count": 4, "cell_voltages": [3.43, 3.425, 3.432, 3.417], "chrg_mosfet": True,
    "dischrg_mosfet": False, "problem_code": 0, "balancer": False, "power": -44.772, "temperature": 22.133,
}  # fmt: skip


def sensor(value: float, kind: str) -> Any:
    return SimpleNamespace(value=value, type=SimpleNamespace(name=kind))


def test_a_reading_by_the_names_of_a_sample() -> None:
    part = part_of(SAMPLE | {"temp_values": [sensor(22.4, "CELL"), sensor(0.0, "GENERIC"), 21.7]})
    assert (part.values["pack_v"], part.values["current_a"], part.values["soc_bms"]) == (15.6, -2.87, 0.88)
    assert [part.values[f"cell_v[{i}]"] for i in range(4)] == [3.43, 3.425, 3.432, 3.417]
    assert [part.values[f"temp_c[{i}]"] for i in range(3)] == [22.4, 0.0, 21.7]
    assert (part.values["charge_mos"], part.values["discharge_mos"], part.values["alarm.other"]) == (True, False, False)
    assert (part.values["extra.remaining_ah"], part.values["extra.nominal_ah"], part.values["soh_bms"]) == (
        4.98,
        5,
        0.97,
    )
    assert not part.quality and "power" not in str(part.values) and "temp_c[3]" not in part.values


def test_every_name_is_one_that_a_mapping_may_use() -> None:
    part = part_of(SAMPLE | {"temp_values": [sensor(1, "CELL"), sensor(2, "MOSFET"), sensor(3, "AMBIENT")]})
    assert {name.partition("[")[0] for name in part.values} <= {name.partition("[")[0] for name in BLE.fields}


def test_sensors_that_are_not_the_batterys_are_no_temperature_of_it() -> None:
    temps = [sensor(31.0, "MOSFET"), sensor(28.4, "GENERIC"), sensor(50.0, "PCB"), sensor(12.0, "AMBIENT")]
    values = part_of({"temp_values": [*temps, sensor(31.5, "MOSFET"), sensor(29.2, "CELL")]}).values
    assert values == {"extra.mos_temp_c": 31.0, "temp_c[0]": 28.4, "ambient_c": 12.0, "temp_c[1]": 29.2}


def test_cells_of_which_one_was_left_out_have_no_places() -> None:
    """aiobmsble leaves cells of 0 V out of its list: every one behind it would stand a place too low."""
    part = part_of({"cell_count": 4, "cell_voltages": [3.43, 3.432, 3.417]})
    assert part.values == dict.fromkeys([f"cell_v[{i}]" for i in range(4)])
    assert set(part.quality.values()) == {"invalid"}


@pytest.mark.parametrize(("value", "reason"), [(None, "absent"), (float("nan"), "invalid"), ("high", "invalid")])
def test_what_is_no_number_is_none(value: Any, reason: str) -> None:
    part = part_of({"voltage": value})
    assert part.values == {"pack_v": None} and part.quality == {"pack_v": reason}


def test_a_problem_is_an_alarm() -> None:
    assert part_of({"problem_code": 4}).values["alarm.other"] is True
    assert part_of({"problem": True}).values["alarm.other"] is True
    assert "alarm.other" not in part_of({"voltage": 1.0}).values


def test_a_reading_survives_the_flight_recorder() -> None:
    temps = [sensor(22.4, "CELL"), sensor(31.0, "MOSFET"), 21.7]
    for reading in (SAMPLE | {"temp_values": temps}, {}, {"cell_count": 3, "cell_voltages": [1.0]}):
        assert part_of(of_json(json.loads(json.dumps(as_json(reading))))) == part_of(reading)


def written(folder: Path, lines: str = 'address = "AA:BB:CC:00:11:22"\n', mapping: str = MAPPING) -> Path:
    (folder / "m.toml").write_text(mapping)
    (folder / "edge.toml").write_text(
        f'device = "box"\n[[source]]\npack_id = "P"\ntype = "ble"\nmapping = "m.toml"\n{lines}'
    )
    return folder / "edge.toml"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="this Python can have aiobmsble")
def test_with_an_older_python_it_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"Bluetooth needs Python 3\.12 or newer, this is 3\.11.*packtwin\[edge,ble\]"
    ):
        build_lanes(load_config(written(tmp_path), {}))


def test_without_the_extra_it_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.sources.ble._NEEDS", (3, 11))
    monkeypatch.setitem(sys.modules, "aiobmsble", None)
    with pytest.raises(ConfigError, match=r"needs aiobmsble: install packtwin with the extra ble"):
        check_available()


def test_it_is_only_imported_where_it_is_used() -> None:
    names = "'bleak', 'aiobmsble', 'edge.sources.ble'"
    code = f"import sys, edge.lanes, edge.agent; print([name for name in ({names}) if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


WRONG = {
    "no address": ("", MAPPING, "address is missing"),
    "an empty address": ('address = " "\n', MAPPING, "address is empty"),
    "too fast": ('address = "x"\npoll_s = 0.1\n', MAPPING, "poll_s"),
    "a language of another line": ('address = "x"\n', MAPPING.replace('"ble"', '"jbd"'), 'protocol = "ble"'),
    "a field that it does not say": ('address = "x"\n', MAPPING.replace('from = "cycles"', 'from = "speed"'), "says"),
}


@pytest.mark.parametrize(("lines", "mapping", "says"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_told_in_one_sentence(tmp_path: Path, lines: str, mapping: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        build_lanes(load_config(written(tmp_path, lines, mapping), {}))
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_mapping_for_bluetooth_is_for_bluetooth(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(MAPPING)
    for source, says in (
        ('type = "serial"\nchannel = "/dev/ttyUSB0"', "serial port"),
        ('interface = "socketcan"\nchannel = "can0"', 'type = "ble"'),
    ):
        (tmp_path / "edge.toml").write_text(
            f'device = "box"\n[[source]]\npack_id = "P"\nmapping = "m.toml"\n{source}\n'
        )
        with pytest.raises(ConfigError) as error:
            build_lanes(load_config(tmp_path / "edge.toml", {}))
        assert says in str(error.value)


# --- aiobmsble itself, on a Python that can have it ---


def newer_pythons() -> Iterator[str]:
    """Pythons that may be 3.12 or newer: ours, those on the PATH, those beside them."""
    yield sys.executable
    for minor in (12, 13, 14):
        yield from filter(None, [shutil.which(f"python3.{minor}")])
        for folder in (Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions", Path("/opt/python")):
            yield from map(str, sorted(folder.glob(f"3.{minor}*/bin/python3")))


def newer_python() -> str | None:
    """The first that really is: a version manager's shim may stand for a version that is not there."""
    question = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))"
    for python in newer_pythons():
        if subprocess.run([python, "-c", question], capture_output=True, check=False, timeout=60).returncode == 0:
            return python
    return None


@pytest.fixture(scope="module")
def python_with_aiobmsble(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The Python of a venv with what the extra `ble` brings, from the lock."""
    found = newer_python()
    if found is None:
        missing("needs a Python 3.12 or newer with venv, for aiobmsble")
    target = tmp_path_factory.mktemp("ble") / "venv"
    if found == sys.executable:
        venv.create(target)
    else:
        subprocess.run([found, "-m", "venv", "--without-pip", target], check=True, capture_output=True, timeout=120)
    python = str(target / "bin" / "python")
    told = {**os.environ, **install.pip_settings(os.environ, install.pip_configuration())}
    command = [*install.uv(), "pip", "install", "-q", "--python", python, "-c", str(install.LOCK), "--require-hashes"]
    done = subprocess.run(
        [*command, "-r", "pyproject.toml", "--extra", "ble"],
        cwd=ROOT, env=told, capture_output=True, text=True, check=False, timeout=500,
    )  # fmt: skip
    if done.returncode:
        missing(f"needs what the extra ble brings: {done.stderr.strip()[-200:]}")
    return python


@pytest.mark.slow
def test_a_jbd_behind_a_fake_bleak_client_becomes_the_right_sample(tmp_path: Path, python_with_aiobmsble: str) -> None:
    (tmp_path / "m.toml").write_text(MAPPING)
    done = subprocess.run(
        [python_with_aiobmsble, ROOT / "tests" / "fakes" / "ble_reads.py", tmp_path],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    for sample in told["samples"]:
        assert (sample["pack_v"], sample["current_a"], sample["soc_bms"]) == (15.6, -2.87, 1.0)
        assert sample["cell_v"] == [3.43, 3.425, 3.432, 3.417]
        assert sample["temp_c"] == [22.4, 22.3, 21.7]
        assert (sample["charge_mos"], sample["discharge_mos"], sample["cycles"]) == (True, True, 42.0)
        assert sample["extra"]["remaining_ah"] == 4.98 and sample["alarms"] == [] and sample["quality"] == {}
    assert len(told["samples"]) == 2, "known by what it advertises, and by its name and bms"
    assert told["written"] == ["dda50300fffd77", "dda50400fffc77"], "nothing but readings is asked for"
    assert "cannot be read over Bluetooth" in told["broken"]
    assert told["again"] == 15.6 and told["connected again"]
    assert "is not heard over Bluetooth" in told["away"]
    assert 'bms = "none_bms" is none that aiobmsble knows' in told["unknown"]
    assert "aiobmsble does not know what it is" in told["stranger"]


def test_a_mapping_takes_what_is_said(tmp_path: Path) -> None:
    (tmp_path / "m.toml").write_text(MAPPING)
    fields = PartDecoder(load_mapping(tmp_path / "m.toml")).decode([(5, part_of(SAMPLE))])
    assert fields.newest["current_a"] == (-2.87, 5, None) and fields.spans["current_a"] == (-2.87, -2.87)
