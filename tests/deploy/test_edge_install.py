"""What brings the agent onto a Pi: the installer's refusals and its dry run, the units, the settings it writes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT, missing

from edge.config import load_config

EDGE = ROOT / "deploy" / "edge"
INSTALL = EDGE / "install.sh"
UNITS = ("packtwin-edge.service", "packtwin-can@.service")
WORST_EXPOSURE = 2.5  # of systemd-analyze security: 0 is none, 10 all of it
BLOCK = re.compile(r"^[\w.-]+==.*\n(?:    --hash=.*\n?)*", re.MULTILINE)


def unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit file; each may stand in several lines."""
    settings: dict[str, list[str]] = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", (EDGE / name).read_text(), re.MULTILINE):
        settings.setdefault(key, []).append(value)
    return settings


def installer(*arguments: str, **programs: str) -> subprocess.CompletedProcess[str]:
    """Runs install.sh; programs: shell lines that stand in for programs of the system."""
    if not Path("/etc/debian_version").exists():
        missing("needs a Debian")
    folder = Path(os.environ["PYTEST_TMP"])
    for name, line in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{line}\n")
        (folder / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run(
        ["/bin/sh", str(INSTALL), *arguments], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_TMP", str(tmp_path))


def test_the_packages_of_the_agent_are_those_of_the_lock() -> None:
    """pip checks hashes of a flat list only, so the agent has one: `make lock` writes both."""
    lock = set(BLOCK.findall((ROOT / "requirements.lock").read_text()))
    ours = BLOCK.findall((EDGE / "requirements.txt").read_text())
    assert len(ours) > 20 and set(ours) <= lock
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {block.split("==")[0] for block in ours}
    for wanted in [*project["dependencies"], *project["optional-dependencies"]["edge"]]:
        assert re.split(r"[\[<>=~! ]", wanted)[0].lower() in names, f"{wanted}: run make lock"


def test_the_dry_run_says_everything_and_changes_nothing() -> None:
    places = [Path(p) for p in ("/opt", "/etc", "/etc/systemd/system", "/usr/local/bin", "/var/lib")]
    before = [sorted(each.name for each in place.iterdir()) for place in places]
    done = installer("--dry-run", "--device", "van-17")
    assert done.returncode == 0, done.stderr
    assert before == [sorted(each.name for each in place.iterdir()) for place in places]
    assert done.stdout.endswith("nothing was changed\n")
    if not Path("/opt/packtwin").exists():
        for said in ("useradd --system", "--require-hashes", "packtwin-edge.service", "write /etc/packtwin/edge.toml"):
            assert f"would: {said}" in done.stdout or said in done.stdout, said
    gone = installer("--dry-run", "--uninstall")
    assert gone.returncode == 0 and "would: rm -rf /opt/packtwin\n" in gone.stdout
    assert not re.search(r"would: rm.*(/etc/packtwin|/var/lib/packtwin)", gone.stdout), "settings and data stay"


@pytest.mark.parametrize(
    ("arguments", "programs", "sentence"),
    [
        (["--frob"], {}, "--frob is not an option"),
        (["--wheels"], {}, "--wheels needs a folder"),
        (["--dry-run", "--wheels", "/nowhere"], {}, "/nowhere is no folder"),
        (["--dry-run", "--device", "a b"], {}, "'a b' cannot be a device's id"),
        (["--dry-run"], {"dpkg": "echo armhf"}, "needs a 64-bit system and this one is armhf"),
        (["--dry-run"], {"python3": "test $1 = -V && echo Python 3.9.2 || exit 1"}, "this system has Python 3.9.2"),
        (["--dry-run"], {"df": "printf 'x\\nx 1 1 2048 1 /\\n'"}, "/opt has 2 MiB free"),
        ([], {"id": "echo 1000"}, "needs root: run it with sudo"),
    ],
)
def test_what_cannot_be_is_one_sentence_before_anything_is_changed(
    arguments: list[str], programs: dict[str, str], sentence: str
) -> None:
    done = installer(*arguments, **programs)
    assert done.returncode in (1, 2) and done.stderr.startswith("install.sh: ") and sentence in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


def test_a_folder_of_wheels_without_packtwin_or_with_two_of_it_is_refused(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    assert "holds no packtwin-*.whl" in installer("--dry-run", "--wheels", str(wheels)).stderr
    for version in ("1", "2"):
        (wheels / f"packtwin-{version}-py3-none-any.whl").touch()
    assert "more than one packtwin-*.whl" in installer("--dry-run", "--wheels", str(wheels)).stderr


def test_help_is_the_top_of_the_file() -> None:
    done = installer("--help")
    assert done.returncode == 0 and "--uninstall" in done.stdout and not done.stdout.startswith("#")


def test_the_settings_that_it_writes_are_settings_and_meet_the_unit(tmp_path: Path) -> None:
    written = tmp_path / "edge.toml"
    written.write_text((EDGE / "edge.toml").read_text().replace("@DEVICE@", "van-17"))
    config = load_config(written, {})
    service = unit("packtwin-edge.service")
    assert config.device == "van-17" and config.uplink.url == ""
    assert config.outbox.cold_dir == Path("/var/lib") / service["StateDirectory"][0]
    assert config.outbox.hot_dir == Path("/run") / service["RuntimeDirectory"][0]
    assert service["RuntimeDirectoryPreserve"] == ["yes"], "a restart must find what is in memory"
    can = dict(line.split("=") for line in (EDGE / "can0.env").read_text().splitlines() if not line.startswith("#"))
    (known,) = unit("packtwin-can@.service")["Environment"]
    assert {word.split("=")[0] for word in known.split()} == set(can)
    assert config.sources[0].bitrate == int(can["BITRATE"])


def test_the_places_of_the_unit_are_those_of_the_installer() -> None:
    script = INSTALL.read_text()
    places = dict(re.findall(r"^([A-Z]+)=(\S+)", script, re.MULTILINE))
    (start,) = unit("packtwin-edge.service")["ExecStart"]
    assert start == f"{places['PREFIX']}/current/bin/packtwin-edge run --config {places['CONFIG']}/edge.toml"
    assert unit("packtwin-edge.service")["User"] == [places["ACCOUNT"]]


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_unit_without_a_word(name: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze") or missing("needs systemd-analyze (apt-get install systemd)")
    there = tmp_path / name
    text = (EDGE / name).read_text()
    for program in ("/opt/packtwin/current/bin/packtwin-edge", "/sbin/ip"):
        text = text.replace(program, "/bin/true")
    there.write_text(text)
    instance = there.with_name(name.replace("@", "@can0"))
    there.rename(instance)
    done = subprocess.run([analyze, "verify", "--man=no", str(instance)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_may_do_little(name: str) -> None:
    analyze = shutil.which("systemd-analyze") or missing("needs systemd-analyze (apt-get install systemd)")
    command = [analyze, "security", "--offline=true", "--no-pager", str(EDGE / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"})
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stderr
    print(f"{name}: exposure {found.group(1)}")
    assert float(found.group(1)) <= WORST_EXPOSURE


def test_the_agent_may_still_ask_whether_the_clock_is_synchronised() -> None:
    """@system-service has no adjtimex, and ProtectClock=yes forbids it: the kernel's clock was never trusted then."""
    service = unit("packtwin-edge.service")
    assert {"adjtimex", "clock_adjtime"} <= set(service["SystemCallFilter"][0].split())
    assert "ProtectClock" not in service
    assert "ProcSubset" not in service, "the boot's id is below /proc/sys"
