"""The Dockerfiles, without Docker: what they copy, and the step that fills an image, run for real."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from composed import Composed
from conftest import ROOT


def test_the_dockerfiles_copy_what_is_there_and_let_it_through() -> None:
    for name in ("Dockerfile", "mlflow.Dockerfile"):
        text = (ROOT / "deploy" / "docker" / name).read_text()
        allowed = {
            line[1:]
            for line in (ROOT / "deploy" / "docker" / f"{name}.dockerignore").read_text().splitlines()
            if line.startswith("!")
        }
        for source in re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE):
            for path in source.split()[:-1]:
                assert (ROOT / path).exists(), f"{name}: {path}"
                assert any(f"{path}/".startswith(f"{each}/") for each in allowed), f"{name}: {path} is ignored"
        users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
        assert users and set(users) == {"10001:10001"}
        for image in re.findall(r"^FROM (?:--platform=\S+ )?(\S+)", text, re.MULTILINE):
            assert "latest" not in image
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    starts = re.findall(r'^ENTRYPOINT \["([\w-]+)"\]', (ROOT / "deploy/docker/Dockerfile").read_text(), re.MULTILINE)
    assert set(starts) <= set(scripts)


@pytest.mark.slow
def test_the_step_that_fills_an_image_makes_a_venv_that_works_without_the_checkout(tmp_path: Path) -> None:
    """With the files that the Dockerfile copies. The script was once called venv.py, and hid Python's own."""
    text = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    source, built = tmp_path / "src", shutil.ignore_patterns("node_modules", "__pycache__")
    copied = re.search(r"^FROM python:\S+ AS source$(.*?)^FROM", text, re.MULTILINE | re.DOTALL)
    assert copied is not None
    for *paths, _ in (line.split() for line in re.findall(r"^COPY (?!--from)(.*)$", copied[1], re.MULTILINE)):
        for path in paths:
            (source / path).parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / path).is_dir():
                shutil.copytree(ROOT / path, source / path, ignore=built)
            else:
                shutil.copy(ROOT / path, source / path)
    command = [os.path.realpath(sys.executable), str(source / "deploy" / "docker" / "make_venv.py"), "edge"]
    done = subprocess.run([*command, str(tmp_path / "venv")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    shutil.rmtree(source)
    for name in ("packtwin-edge", "packtwin-sim"):
        help_ = subprocess.run([str(tmp_path / "venv" / "bin" / name), "--help"], capture_output=True, check=False)
        assert help_.returncode == 0, help_.stderr.decode()


def test_the_pg_dump_of_our_image_is_not_older_than_the_server(stack: Composed) -> None:
    server = re.search(r"-pg(\d+)$", stack.settings["TIMESCALEDB_IMAGE"])
    client = re.search(r"postgresql-client-(\d+)", (ROOT / "deploy" / "docker" / "Dockerfile").read_text())
    assert server and client and int(client.group(1)) >= int(server.group(1))
