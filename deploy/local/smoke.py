"""Builds the wheel and tries it as a user would: one fresh venv per extra, every command from another folder."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import install
import light

ROOT = Path(__file__).resolve().parents[2]
INSIDE = (
    "cloud/web/dist/index.html",
    "cloud/champion/rul-1.bundle",
    "firmware_bridge/packtwin.dbc",
    "edge/samples/mapping.toml",
    "edge/samples/edge.toml",
    "shared/py.typed",
)
# A Raspberry Pi installs the edge extra: none of these may come with it.
HEAVY = ("pandas", "pyarrow", "scipy", "sklearn", "xgboost", "asammdf", "fastapi", "psycopg")
COMMANDS: Mapping[str, Sequence[Sequence[str]]] = {
    "edge": (
        ("packtwin-edge", "--help"),
        ("python", "-m", "edge", "run", "--help"),
        ("python", "-m", "edge", "status", "--help"),
        ("python", "-m", "edge", "replay", "--help"),
        ("python", "-m", "edge", "decode", "--help"),
        ("python", "-m", "edge", "doctor", "--help"),
        ("python", "-m", "edge", "model", "status", "--help"),
        ("packtwin-sim", "sim", "--cars", "1", "--seconds", "1", "--log", "-"),
        ("python", "-m", "firmware_bridge", "fault", "--help"),
        ("python", "-m", "firmware_bridge", "lives", "--packs", "2", "-o", "lives"),
    ),
    "cloud": (
        ("packtwin-cloud", "--help"),
        ("python", "-m", "cloud", "migrate", "--help"),
        ("python", "-m", "cloud", "api", "--help"),
        ("python", "-m", "cloud", "ingest", "--help"),
        ("python", "-m", "cloud", "release", "publish", "--help"),
    ),
    "train": (("packtwin-cloud", "train", "--packs", "60", "--models", "models"),),
    "dev": (("python", "-m", "pytest", "--version"), ("ruff", "--version"), ("mypy", "--version")),
}


def main() -> None:
    """Prints one line per extra; ends with 1 and the command's own words when something does not work."""
    with tempfile.TemporaryDirectory(prefix="packtwin-smoke-") as name:
        folder = Path(name)
        wheel = build(folder / "dist")
        print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MiB, the page and all data are inside")
        for extra, commands in COMMANDS.items():
            began_s = time.monotonic()
            binaries = install_extra(wheel, extra, folder / extra)
            elsewhere = folder / f"{extra}-elsewhere"
            elsewhere.mkdir()
            for command in commands:
                start(binaries, command, elsewhere)
            if extra == "edge":
                stays_light(binaries, elsewhere)
                print(light.checked(binaries / "python", elsewhere), flush=True)
            print(f"{extra:<5} {len(commands)} commands start ({time.monotonic() - began_s:.0f} s)", flush=True)


def build(target: Path) -> Path:
    """Returns the wheel, built with the locked backend; ends when something a user needs is not in it."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)]
    told(command, ROOT, os.environ)
    wheel = next(target.glob("*.whl"))
    names = set(zipfile.ZipFile(wheel).namelist())
    absent = [name for name in INSIDE if name not in names]
    if absent:
        raise SystemExit(f"packtwin: the wheel lacks {', '.join(absent)}; see [tool.hatch.build.targets.wheel]")
    top = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    if top != {"shared", "firmware_bridge", "edge", "cloud"} or any("node_modules" in name for name in names):
        raise SystemExit(f"packtwin: the wheel carries more than the four packages: {', '.join(sorted(top))}")
    return wheel


def install_extra(wheel: Path, extra: str, target: Path) -> Path:
    """Returns the folder of the commands of a fresh venv that has this wheel with one extra, from the lock."""
    venv.create(target)
    command = [*install.uv(), "pip", "install", "-q", "--python", str(target / "bin" / "python")]
    environment = {**os.environ, **install.pip_settings(os.environ, install.pip_configuration())}
    told([*command, "-c", str(install.LOCK), f"packtwin[{extra}] @ {wheel.as_uri()}"], target, environment)
    return target / "bin"


def start(binaries: Path, command: Sequence[str], folder: Path) -> str:
    """Returns what a command of the venv prints; ends when its exit code is not 0."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return told([str(binaries / command[0]), *command[1:]], folder, plain)


def stays_light(binaries: Path, folder: Path) -> None:
    """Ends when a heavy library came with the edge extra."""
    question = f"import importlib.util as u; print(*[n for n in {HEAVY!r} if u.find_spec(n)])"
    found = start(binaries, ("python", "-c", question), folder).strip()
    if found:
        raise SystemExit(f"packtwin: the edge extra brings {found}; a small board cannot carry that")


def told(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-2000:]}{done.stderr[-4000:]}\npacktwin: failed: {' '.join(command)}")
    return done.stdout


if __name__ == "__main__":
    main()
