"""A Debian for arm64 in a folder, run by qemu: what a 64-bit Raspberry Pi OS is, without the Pi. Needs root.

The bare system is made once per machine (debootstrap, about 2.5 minutes) and kept in the user's cache folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

from conftest import missing

RELEASE = "bookworm"  # the oldest that deploy/edge/install.sh takes
PACKAGES = "python3,python3-venv,ca-certificates,iproute2"
NEEDS = {"debootstrap": "debootstrap", "qemu-aarch64-static": "qemu-user-static", "update-binfmts": "binfmt-support"}
BINFMT = Path("/proc/sys/fs/binfmt_misc")


class Arm64Root:
    """A fresh copy of the bare system with mounts of its own; a context manager. Its network is the machine's."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "arm64"
        self._namespace: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Arm64Root:
        bare = bare_system()
        subprocess.run(["cp", "-a", "--reflink=auto", str(bare), str(self.root)], check=True)
        # Mounts that only this process and its children see: whatever happens, nothing stays mounted.
        self._namespace = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo ready; exec sleep 3600"],
            stdout=subprocess.PIPE,
        )
        assert self._namespace.stdout is not None and self._namespace.stdout.readline() == b"ready\n"
        self._mount("-t", "proc", "proc", self.root / "proc")
        self._mount("--rbind", "/dev", self.root / "dev")
        self._mount("-t", "tmpfs", "tmpfs", self.root / "run")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._namespace is not None
        self._namespace.kill()
        self._namespace.wait()
        shutil.rmtree(self.root)

    def show(self, outside: Path, inside: str) -> None:
        """Makes a folder of the machine visible."""
        (self.root / inside.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self._mount("--bind", outside, self.root / inside.lstrip("/"))

    def path(self, inside: str) -> Path:
        """Where a path of the inside is on this machine; nothing below /run, which is mounted."""
        return self.root / inside.lstrip("/")

    def command(self, *words: str, account: str = "", environment: dict[str, str] | None = None) -> list[str]:
        """The command line, for this machine, that runs `words` inside as root or as `account`."""
        told = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/", **(environment or {})}
        become = ["setpriv", f"--reuid={account}", f"--regid={account}", "--init-groups"] if account else []
        inside = ["chroot", str(self.root), "env", "-i", *[f"{name}={value}" for name, value in told.items()]]
        return [*self._enter(), *inside, *become, *words]

    def run(self, *words: str, account: str = "", environment: dict[str, str] | None = None) -> str:
        """Runs it to its end; its stdout. AssertionError with its words when it fails."""
        done = self.tried(*words, account=account, environment=environment)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def tried(
        self, *words: str, account: str = "", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs it to its end, whatever that is."""
        command = self.command(*words, account=account, environment=environment)
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    def _mount(self, *arguments: object) -> None:
        subprocess.run([*self._enter(), "mount", *map(str, arguments)], check=True)

    def _enter(self) -> list[str]:
        assert self._namespace is not None
        return ["nsenter", f"--mount=/proc/{self._namespace.pid}/ns/mnt"]


def bare_system() -> Path:
    """The folder of the bare system, made now where it is not there. Skips (CI: fails) where it cannot be had."""
    absent = [package for program, package in NEEDS.items() if shutil.which(program, path="/usr/sbin:/usr/bin") is None]
    if absent:
        missing(f"needs an arm64 userland (apt-get install {' '.join(absent)})")
    enable_binfmt()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "packtwin"
    bare = cache / f"arm64-{RELEASE}"
    if bare.exists():
        return bare
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="arm64-", dir=cache) as name:
        begun = Path(name) / "root"
        command = ["debootstrap", "--arch=arm64", "--variant=minbase", f"--include={PACKAGES}"]
        done = subprocess.run([*command, RELEASE, str(begun), mirror()], capture_output=True, text=True, check=False)
        if done.returncode:
            missing(f"needs Debian's mirror for arm64: {(done.stdout + done.stderr)[-600:]}")
        shutil.rmtree(begun / "var" / "cache" / "apt" / "archives", ignore_errors=True)
        begun.rename(bare)
    return bare


def enable_binfmt() -> None:
    """The kernel hands arm64 programs to qemu."""
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", str(BINFMT)], capture_output=True, check=False)
    subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], capture_output=True, check=False)
    if not (BINFMT / "qemu-aarch64").exists():
        missing("needs a kernel that runs other programs through qemu (binfmt_misc)")


def mirror() -> str:
    """The mirror of Debian that this machine's own apt uses."""
    told = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for line in told.splitlines():
        codename, component, address = line.split(" ", 2)
        if codename == RELEASE and component == "main":
            return address
    return "http://deb.debian.org/debian"
