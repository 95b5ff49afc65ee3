"""`make run` of a checkout with state, ports and hot files of its own, as real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import processes
import stack
import state
from conftest import ROOT
from free_ports import free_port


class Checkout:
    """run.py with state, ports and hot files of its own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        """environment: further settings; a port named there stays as it is."""
        self.paths = stack.Paths(folder / ".local")
        names = ("API_PORT", "DB_PORT", "EDGE_PORT", "METRICS_PORT")
        self.environment = {
            **os.environ,
            **{name: str(free_port()) for name in names},
            "PACKTWIN_RUN": str(folder / "r"),
            **environment,
        }
        self.said = ""  # until it was up
        self.api = f"http://127.0.0.1:{self.environment['API_PORT']}"

    def command(self, *arguments: str) -> list[str]:
        code = (
            f"import sys; sys.path[:0] = [{str(ROOT / 'deploy' / 'local')!r}]\n"
            f"import pathlib, run, stack; stack.LOCAL = pathlib.Path({str(self.paths.local)!r})\n"
            f"sys.exit(run.main({list(arguments)!r}))"
        )
        return [sys.executable, "-c", code]

    def start(self) -> subprocess.Popen[str]:
        """Starts `run` and returns when it says where to look."""
        child = subprocess.Popen(
            self.command("run"), env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert child.stdout is not None
        self.said = ""
        for line in child.stdout:
            self.said += line
            if "  open http" in line:
                return child
        raise AssertionError(self.said)

    def call(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments)
        return subprocess.run(command, env=self.environment, input=text, capture_output=True, text=True, check=False)

    def ready(self) -> str:
        """The table of `status` when every service answers, else nothing."""
        told = self.call("status")
        return told.stdout if told.returncode == 0 else ""

    def services(self) -> dict[str, processes.Identity]:
        found = state.read(self.paths.state)
        assert found is not None
        return {running.name: running.process for running in found.services if running.process is not None}

    def packs(self) -> list[str]:
        with urllib.request.urlopen(f"{self.api}/api/batteries/list", timeout=5) as answer:
            return list(json.load(answer))

    def facts(self, pack: str) -> dict[str, object]:
        with urllib.request.urlopen(f"{self.api}/api/v1/packs/{pack}", timeout=5) as answer:
            return dict(json.load(answer))

    def samples(self) -> int:
        return int(self.call("psql", "-At", text="SELECT count(*) FROM samples\n").stdout or 0)


@contextmanager
def new_checkout(**environment: str) -> Iterator[Checkout]:
    """A checkout that is stopped and forgotten afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="packtwin-run-"))
    folder.chmod(0o755)
    here = Checkout(folder, **environment)
    try:
        yield here
    finally:
        here.call("stop")
        for setting in stack.hot_folder(here.paths):
            shutil.rmtree(setting.split('"')[1], ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)


def end(child: subprocess.Popen[str], number: signal.Signals) -> int:
    child.send_signal(number)
    code = child.wait(90)  # each service may take ten seconds for its end
    assert child.stdout is not None
    child.stdout.close()
    return code
