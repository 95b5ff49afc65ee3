"""usage: make_venv.py EXTRA[,EXTRA] FOLDER. A venv with packtwin and these extras, every file checked against the lock.

For images: nothing in FOLDER points to the checkout.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "local"))

import install  # noqa: E402 - a folder of scripts, not a package


def main(extras: list[str], folder: Path) -> None:
    """Makes the venv; ends with 1 and the installer's words where something cannot be had."""
    told = install.pip_settings(os.environ, install.pip_configuration())
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        venv.create(scratch / "tools", with_pip=True)
        tool = str(scratch / "tools" / "bin" / "python")
        uv = [*install.uv(tool), "pip", "install", "-q"]
        locked = [*uv, "-c", str(install.LOCK), "--require-hashes"]
        install.run([*locked, "--python", tool, "--group", "install"], told)
        build = [tool, "-m", "hatchling", "build", "-t", "wheel", "-d", str(scratch)]
        subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = scratch.glob("*.whl")
        venv.create(folder)
        target = ["--python", str(folder / "bin" / "python"), "--compile-bytecode"]
        wanted = [word for extra in extras for word in ("--extra", extra)]
        install.run([*locked, *target, "-r", "pyproject.toml", *wanted], told)
        install.run([*uv, *target, "--no-deps", str(wheel)], told)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit((__doc__ or "").splitlines()[0])
    main(sys.argv[1].split(","), Path(sys.argv[2]))
