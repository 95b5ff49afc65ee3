"""tests/vcan, run in a Linux kernel that has SocketCAN: the reader, its rates, and the agent that recovers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import missing

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "deploy" / "local" / "vcan-kernel"
NO_KERNEL = 125
LIMIT_S = 540


def run(*command: str) -> tuple[int, str]:
    """(exit code, all that was said) of a command in the kernel."""
    child = subprocess.Popen(
        [str(RUNNER), *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = child.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        raise
    return child.returncode, said


@pytest.fixture(scope="module")
def kernel() -> None:
    """Skips where no such kernel can be booted; fails there in CI."""
    code, said = run("true")
    if code == NO_KERNEL:
        missing(said.strip().splitlines()[-1])
    assert code == 0, said


@pytest.mark.e2e
@pytest.mark.parametrize("file", ["reader", "rates", "recovery", "asked"])
def test_on_a_real_can_kernel(kernel: None, file: str) -> None:
    """See tests/vcan; what it measured is printed with -s."""
    # The host's disk is slow from in there: one plugin is loaded, and files are in the kernel's own memory.
    options = ["-m", "pytest", "-qs", "-p", "pytest_timeout", "-p", "no:cacheprovider", "--basetemp=/run/pytest"]
    code, said = run("env", "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1", sys.executable, *options, f"tests/vcan/{file}.py")
    print(said)
    assert code == 0, said


@pytest.mark.e2e
def test_the_exit_code_and_the_words_are_the_commands_own(kernel: None) -> None:
    code, said = run("bash", "-c", "echo said; echo complained >&2; pwd; exit 7")
    assert (code, said.split()) == (7, ["said", "complained", str(ROOT)])


def test_without_a_kernel_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    for tool in ("bash", "sed", "dirname"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or "")
    done = subprocess.run(
        [str(tmp_path / "bash"), str(RUNNER), "true"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == NO_KERNEL
    assert done.stderr.count("\n") == 1 and "apt install user-mode-linux" in done.stderr
