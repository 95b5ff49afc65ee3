"""Installs what a set of extras needs into this very venv, from `requirements.lock` alone, every file checked by hash.

Run by the Makefile with the venv's own Python; needs the standard library and pip only.
pip would need a second, flat lock per set of extras; uv takes the one universal lock as hashed constraints.
"""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
EDGE_LOCK = ROOT / "deploy" / "edge" / "requirements.txt"
# The page is moving after this; nothing else belongs into the minute a newcomer waits.
SETS: Mapping[str, tuple[str, ...]] = {
    "run": ("edge", "cloud", "local"),
    "node": ("edge", "cloud", "local", "node"),
    "train": ("edge", "cloud", "local", "train"),
    "dev": ("edge", "logs", "cloud", "local", "train", "dev"),
}


def pinned(name: str, lock: str) -> str:
    """Returns the lock's block of one package (`name==1.2 --hash=...`), as a requirements file holds it."""
    found = re.search(rf"^{re.escape(name)}==.*\n(?:    --hash=.*\n)*", lock, re.MULTILINE)
    if found is None:
        raise SystemExit(f"packtwin: requirements.lock has no {name}; run 'make lock'")
    return found.group(0)


def pip_settings(environment: Mapping[str, str], configured: str) -> dict[str, str]:
    """Returns what uv must be told so that it asks the same index with the same certificates as pip does here.

    `configured` is the output of `pip config list`; variables that uv already has win.
    """
    known = dict(re.findall(r"^(?:global|install)\.([\w-]+)='(.*)'$", configured, re.MULTILINE))
    told = {
        "UV_DEFAULT_INDEX": environment.get("PIP_INDEX_URL") or known.get("index-url", ""),
        "UV_INDEX": environment.get("PIP_EXTRA_INDEX_URL") or known.get("extra-index-url", ""),
        "SSL_CERT_FILE": environment.get("PIP_CERT") or known.get("cert", ""),
    }
    authorities = ssl.create_default_context().cert_store_stats()["x509_ca"]
    if authorities:  # as pip does: the machine's own, where it has any
        told["UV_SYSTEM_CERTS"] = "true"
    return {key: value for key, value in told.items() if value and key not in environment}


def caches(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns where pip, uv and npm keep downloads when the home folder cannot be written: in the checkout."""
    if os.access(environment.get("HOME") or "/nonexistent", os.W_OK):
        return {}
    places = {"PIP_CACHE_DIR": "pip", "UV_CACHE_DIR": "uv", "npm_config_cache": "npm"}
    chosen = {name: str(ROOT / ".local" / "cache" / folder) for name, folder in places.items()}
    return {name: place for name, place in chosen.items() if name not in environment}


def pip_configuration() -> str:
    """Returns what `pip config list` prints here."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def uv(python: str = sys.executable) -> list[str]:
    """Returns the command that starts uv in this venv; installs it (by hash) where it is missing."""
    binary = Path(python).with_name("uv")
    if not binary.exists():
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirement:
            requirement.write(pinned("uv", LOCK.read_text()))
            requirement.flush()
            pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            run([*pip, "--require-hashes", "-r", requirement.name], {})
    return [str(binary)]


def run(command: Sequence[str], environment: Mapping[str, str]) -> None:
    """Runs one installer step; its own message is the error, and this process ends with 1."""
    if subprocess.run(
        command, cwd=ROOT, env={**os.environ, **caches(os.environ), **environment}, check=False
    ).returncode:
        raise SystemExit(f"packtwin: could not install; the lines above say why (step: {' '.join(command[:4])} ...)")


def write_lock(told: Mapping[str, str]) -> None:
    """Writes the lock anew: every extra and the installer's tools, all platforms, no addresses; then the agent's."""
    everything = ["pyproject.toml", "--all-extras", "--group", "install", "--universal", "--python-version", "3.11"]
    plain = ["--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate", "-q", "--upgrade"]
    run([*uv(), "pip", "compile", *everything, *plain, "-o", LOCK.name], told)
    # pip on a Pi checks hashes of a flat list only.
    agent = ["pyproject.toml", "--extra", "edge", "--universal", "--python-version", "3.11", "-c", LOCK.name]
    run([*uv(), "pip", "compile", *agent, *plain, "-o", str(EDGE_LOCK)], told)


def main(arguments: Sequence[str]) -> None:
    """Installs the set named (`run`, `node`, `dev`) and the project itself, editable; `lock` writes the lock anew."""
    if len(arguments) != 1 or arguments[0] not in (*SETS, "lock"):
        raise SystemExit(f"usage: install.py {'|'.join(SETS)}|lock")
    told = pip_settings(os.environ, pip_configuration())
    if arguments[0] == "lock":
        write_lock(told)
        return
    install = [*uv(), "pip", "install", "-q", "--python", sys.executable]
    locked = [*install, "-c", str(LOCK), "--require-hashes"]
    extras = [word for extra in SETS[arguments[0]] for word in ("--extra", extra)]
    run([*locked, "--group", "install"], told)
    run([*locked, "-r", "pyproject.toml", *extras], told)
    # Without isolation, so that the build backend is the locked one and nothing is fetched here.
    run([*install, "--no-deps", "--no-build-isolation", "-e", "."], told)


if __name__ == "__main__":
    main(sys.argv[1:])
