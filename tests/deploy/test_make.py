"""The Makefile's first steps and the lock, on machines that lack something."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import install
import page
import pytest
import stack
from conftest import ROOT, missing

FIND = ROOT / "deploy" / "local" / "find-python"


def find_python(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs find-python with nothing but `folder` and the system's plain tools on the PATH."""
    path = f"{folder}:{tools(folder)}"
    return subprocess.run(
        ["/bin/sh", str(FIND)], env={"PATH": path, **environment}, capture_output=True, text=True, check=False
    )


def tools(folder: Path) -> Path:
    """A PATH folder with the tools of every system, but no Python."""
    bare = folder / "tools"
    bare.mkdir(exist_ok=True)
    for tool in ("cut", "sh"):
        if not (bare / tool).exists():
            (bare / tool).symlink_to(f"/usr/bin/{tool}" if Path(f"/usr/bin/{tool}").exists() else f"/bin/{tool}")
    return bare


def fake_python(path: Path, answer: str, version: str) -> None:
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo Python {version} || echo "{answer}"\n')
    path.chmod(0o755)


def test_no_python_is_one_sentence(tmp_path: Path) -> None:
    done = find_python(tmp_path)
    assert done.returncode == 2
    assert done.stderr == "packtwin: needs Python 3.11 or newer and found none; install it or set PYTHON=...\n"


def test_a_python_that_is_too_old_is_one_sentence(tmp_path: Path) -> None:
    fake_python(tmp_path / "python3", "old", "3.9.2")
    done = find_python(tmp_path)
    assert done.returncode == 2
    assert "needs Python 3.11 or newer, but python3 is 3.9.2" in done.stderr and done.stderr.count("\n") == 1


def test_a_python_without_venv_is_one_sentence(tmp_path: Path) -> None:
    fake_python(tmp_path / "python3.11", "bare", "3.11.2")
    done = find_python(tmp_path)
    assert done.returncode == 2
    assert "python3.11 has no venv module; install it (Debian, Ubuntu: apt install python3-venv)" in done.stderr


def test_a_shim_without_its_python_is_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "python3.13"
    broken.write_text("#!/bin/sh\necho 'not installed' >&2; exit 127\n")
    broken.chmod(0o755)
    (tmp_path / "python3").symlink_to(sys.executable)
    done = find_python(tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/python3\n")


def test_python_from_the_environment_wins_and_a_wrong_one_is_named(tmp_path: Path) -> None:
    assert find_python(tmp_path, PYTHON=sys.executable).stdout == f"{sys.executable}\n"
    done = find_python(tmp_path, PYTHON="/nowhere/python")
    assert done.returncode == 2 and "found none at PYTHON=/nowhere/python" in done.stderr


def test_the_lock_pins_every_direct_dependency_and_nothing_else_is_asked_for() -> None:
    """`make lock` was run after pyproject.toml changed."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = [
        project["project"]["dependencies"],
        project["build-system"]["requires"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    pins: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.]+)", install.LOCK.read_text(), re.MULTILINE):
        pins.setdefault(name, []).append(version)
    for wanted in (Requirement(text) for each in lists for text in each):
        found = pins.get(wanted.name.lower().replace("_", "-"))
        assert found, f"{wanted.name} is not in requirements.lock; run make lock"
        assert all(wanted.specifier.contains(Version(version)) for version in found), f"{wanted} against {found}"


def test_the_lock_names_no_address_and_hashes_every_file() -> None:
    lock = install.LOCK.read_text()
    assert "://" not in lock and "--index" not in lock and "@" not in lock
    blocks = re.split(r"^(?=\S)", lock, flags=re.MULTILINE)[1:]
    assert len(blocks) > 50
    assert all("--hash=sha256:" in block for block in blocks)


def test_the_installer_asks_where_pip_asks() -> None:
    configured = "global.cert='/c.pem'\nglobal.index-url='https://mirror/simple'\ninstall.no-deps='0'\n"
    told = install.pip_settings({"PATH": "/bin"}, configured)
    assert told["UV_DEFAULT_INDEX"] == "https://mirror/simple" and told["SSL_CERT_FILE"] == "/c.pem"
    assert "UV_DEFAULT_INDEX" not in install.pip_settings({"UV_DEFAULT_INDEX": "https://own"}, configured)


@pytest.mark.slow
def test_a_file_that_differs_from_its_hash_is_not_installed(tmp_path: Path) -> None:
    """One digit of a transitive dependency's hashes is changed; the installer must refuse it."""
    tampered = tmp_path / "tampered.lock"
    block = install.pinned("idna", install.LOCK.read_text())
    wrong = re.sub(r"sha256:[0-9a-f]{8}", "sha256:00000000", block)
    assert wrong != block
    tampered.write_text(install.LOCK.read_text().replace(block, wrong))
    target = tmp_path / "venv"
    venv.create(target)
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        missing("needs uv in this venv; 'make test' installs it")
    command = [str(uv), "pip", "install", "-q", "--no-cache", "--python", str(target / "bin" / "python")]
    done = subprocess.run(
        [*command, "-c", str(tampered), "--require-hashes", "-r", "pyproject.toml", "--extra", "cloud"],
        cwd=ROOT,
        env={**os.environ, **install.pip_settings(os.environ, "")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Hash mismatch" in done.stderr and "idna" in done.stderr
    assert not list(target.glob("lib/*/site-packages/fastapi"))


@pytest.mark.parametrize(
    ("said", "fits"), [("v20.20.2", True), ("v22.1.0", True), ("v20.9.0", False), ("v18.19.0", False)]
)
def test_an_old_node_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, fits: bool) -> None:
    for name in ("node", "npm"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {said}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert page.system_node() is fits


def test_downloads_are_cached_in_the_checkout_where_home_cannot_be_written(tmp_path: Path) -> None:
    """A daemon's account has a home folder that does not exist; uv refused to start there."""
    places = install.caches({"HOME": "/nonexistent", "UV_CACHE_DIR": "/mine"})
    assert places["npm_config_cache"] == str(ROOT / ".local" / "cache" / "npm")
    assert "UV_CACHE_DIR" not in places, "a place that was chosen stays"
    assert install.caches({"HOME": str(tmp_path)}) == {}


def test_help_lists_every_target() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE).group(1).split())  # type: ignore[union-attr]
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[1] for line in done.stdout.splitlines()} == phony


def test_clean_with_data_also_forgets_what_the_agent_keeps_in_memory(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    (tmp_path / ".local" / "edge").mkdir(parents=True)
    setting = stack.hot_folder(stack.Paths(tmp_path / ".local"))
    if not setting:
        missing("needs a tmpfs at /dev/shm")
    hot = Path(setting[0].split('"')[1])
    other = hot.with_name(f"{hot.name}-of-another")
    for folder in (hot, other):
        folder.mkdir(parents=True)
        (folder / "outbox.db").touch()
    try:
        subprocess.run(["make", "-s", "clean", "DATA=1"], cwd=tmp_path, check=True)
        assert not hot.exists() and not (tmp_path / ".local").exists()
        assert (other / "outbox.db").exists()
    finally:
        shutil.rmtree(other)


def test_the_pages_own_tests_pass() -> None:
    """They ran nowhere but by hand."""
    command = [sys.executable, str(ROOT / "deploy" / "local" / "page.py"), "test"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
