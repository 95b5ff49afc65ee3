"""Runs a bundle's models in a process of their own, so that no model can harm or delay who measures.

`Runner` keeps such a process for the active bundle, `probe` tries a new one out. Both block, so they belong into a
thread of their own; the kernel kills the process when the thread that started it ends. See `edge/infer_child.py`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import select
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edge.clock import Clock
from shared import bundle as bundles
from shared.bundle import OUTPUTS, Bundle, BundleError
from shared.errors import PacktwinError

MEMORY_MB: Final = 128.0
START_S: Final = 10.0
ANSWER_S: Final = 1.5
PROBE_S: Final = 10.0
PARITY: Final = 1e-5
"""Most that an output may differ from its golden row, times max(|y|, 1)."""
PARITY_P: Final = 1e-6
"""The same for the classifier, absolute."""
_CHILD: Final = Path(__file__).with_name("infer_child.py")
_LENGTH: Final = struct.Struct("<I")
_SHAPE: Final = struct.Struct("<II")
_MAX_ANSWER_BYTES: Final = 1 << 20
_MS_NS: Final = 1_000_000
_KEPT_VARIABLES: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}

_now_ns: Final = Clock().mono_ns
Floats = npt.NDArray[np.float64]


class RunnerError(PacktwinError):
    """The model gives no answer.

    kind: `crash` (it ended, or the runtime refuses it) or `timeout`; `killed` (somebody killed the process) need not be
    the model's fault; `runtime` (no process, or no usable onnxruntime here) is not.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind


class Runner:
    """The models of one bundle file in a child process. Raises BundleError for the file, RunnerError for the child."""

    def __init__(
        self, path: Path, *, memory_mb: float = MEMORY_MB, start_s: float = START_S, answer_s: float = ANSWER_S
    ) -> None:
        body = path.read_bytes()
        self.sha256 = hashlib.sha256(body).hexdigest()
        bundle = bundles.read(body)
        self.manifest = bundle.manifest
        self._answer_s = answer_s
        self._child = _Child(_models(bundle), memory_mb=memory_mb, deadline_ns=_in(start_s))

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._child.pid

    def predict(self, rows: npt.ArrayLike) -> dict[str, Floats]:
        """What each graph says of rows [n, features] (NaN = unknown): float64[n] by output, as it is, perhaps NaN."""
        return self._child.ask(rows, _in(self._answer_s))

    def check(self) -> None:
        """Returns when the child answers; RunnerError when it does not in time."""
        self._child.ask(np.empty((0, 0)), _in(self._answer_s))

    def close(self) -> None:
        """Ends the child; may be called again."""
        self._child.close()


def probe(path: Path, bundle: Bundle, *, memory_mb: float = MEMORY_MB, limit_s: float = PROBE_S) -> None:
    """Returns when the bundle's models load and answer its golden rows as they should, in a limited child.

    BundleError crash | timeout | not_finite | golden | out_of_range; OSError when the trouble is this machine's.
    """
    deadline_ns = _in(limit_s)
    try:
        child = _Child(_models(bundle), memory_mb=memory_mb, deadline_ns=deadline_ns, cpu_s=int(np.ceil(limit_s)))
        try:
            rows = np.asarray(bundle.golden.rows, np.float32)
            found = child.ask(rows, deadline_ns)
            extremes = child.ask(_extremes(bundle), deadline_ns)
        finally:
            child.close()
    except RunnerError as error:
        if error.kind in ("runtime", "killed"):
            raise OSError(errno.EAGAIN, str(error)) from None
        raise BundleError(error.kind, f"{path.name}: {error}") from None
    for name, values in (*found.items(), *extremes.items()):
        if not np.isfinite(values).all():
            raise BundleError("not_finite", f"{path.name}: {name} is not a number")
    for name, values in found.items():
        _require_parity(name, values, np.asarray(bundle.golden.outputs[name], np.float64), path)
    bundles.answer(bundle.manifest, found, np.asarray(bundle.golden.rows, np.float64))


def _require_parity(name: str, values: Floats, golden: Floats, path: Path) -> None:
    limit = PARITY_P if name == "p_eol_100" else PARITY * np.maximum(np.abs(golden), 1.0)
    off = np.abs(values - golden)
    if not (off <= limit).all():
        raise BundleError("golden", f"{path.name}: {name} is off by {np.nanmax(off):.3g} on its golden rows")


def _extremes(bundle: Bundle) -> Floats:
    """Rows that a graph must survive: every feature at its least, and at its greatest."""
    lo = np.array([feature.lo for feature in bundle.manifest.features])
    hi = np.array([feature.hi for feature in bundle.manifest.features])
    return np.stack([lo, hi])


def _in(seconds: float) -> int:
    """The monotonic ns of that moment."""
    return _now_ns() + int(seconds * 1e9)


def _models(bundle: Bundle) -> dict[str, bytes]:
    return {name: bundle.onnx(name) for name in OUTPUTS}


class _Child:
    """The process and its pipes. Every call has a deadline; after a RunnerError it is dead."""

    def __init__(
        self, models: Mapping[str, bytes], *, memory_mb: float, deadline_ns: int, cpu_s: int | None = None
    ) -> None:
        self._names = tuple(models)
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_CHILD), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=environment | _ONE_THREAD,
                start_new_session=True,
            )
        except OSError as error:
            raise RunnerError("runtime", f"the inference process cannot be started: {error}") from None
        assert self._process.stdin and self._process.stdout
        self.pid = self._process.pid
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._in, self._out):
            os.set_blocking(pipe, False)
        told = json.dumps({"models": self._names, "memory_mb": memory_mb, "cpu_s": cpu_s}).encode()
        try:
            for body in (told, *models.values()):
                self._write(body, deadline_ns)
            answer: dict[str, Any] = json.loads(self._read(deadline_ns))
        except ValueError:
            self.close()
            raise RunnerError("crash", "the inference process talks nonsense") from None
        if "error" in answer:
            self.close()
            kind = "runtime" if answer["error"] == "runtime" else "crash"
            raise RunnerError(kind, f"the model cannot be loaded: {answer.get('detail')}")

    def ask(self, rows: npt.ArrayLike, deadline_ns: int) -> dict[str, Floats]:
        """What each model says of rows [n, columns]: float64[n]."""
        values = np.ascontiguousarray(rows, "<f4")
        self._write(_SHAPE.pack(*values.shape) + values.tobytes(), deadline_ns)
        answer = self._read(deadline_ns)
        expected = 4 * len(self._names) * len(values)
        if len(answer) != 1 + expected or answer[0]:
            self.close()
            said = answer[1:].decode(errors="replace") if answer[:1] == b"\1" else "an answer of the wrong size"
            raise RunnerError("crash", f"the model fails: {said}")
        found = np.frombuffer(answer, "<f4", offset=1).reshape(len(self._names), len(values)).astype(np.float64)
        return dict(zip(self._names, found, strict=True))

    def close(self) -> None:
        """Kills the process and waits for its end."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()
        self._process.kill()
        self._process.wait()

    def _write(self, body: bytes, deadline_ns: int) -> None:
        left = memoryview(_LENGTH.pack(len(body)) + body)
        while left:
            self._wait(self._in, select.POLLOUT, deadline_ns)
            try:
                left = left[os.write(self._in, left) :]
            except BlockingIOError:
                continue
            except OSError:
                raise self._ended() from None

    def _read(self, deadline_ns: int) -> bytes:
        length = _LENGTH.unpack(self._read_bytes(_LENGTH.size, deadline_ns))[0]
        if length > _MAX_ANSWER_BYTES:
            self.close()
            raise RunnerError("crash", "the inference process talks nonsense")
        return self._read_bytes(length, deadline_ns)

    def _read_bytes(self, size: int, deadline_ns: int) -> bytes:
        body = b""
        while len(body) < size:
            self._wait(self._out, select.POLLIN, deadline_ns)
            try:
                part = os.read(self._out, size - len(body))
            except BlockingIOError:
                continue
            if not part:
                raise self._ended()
            body += part
        return body

    def _wait(self, pipe: int, for_: int, deadline_ns: int) -> None:
        poll = select.poll()
        poll.register(pipe, for_)
        if not poll.poll(max(deadline_ns - _now_ns(), 0) / _MS_NS):
            self.close()
            raise RunnerError("timeout", "the model does not answer in time")

    def _ended(self) -> RunnerError:
        """The error for a process whose pipe has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.poll()
        self.close()
        if code == -signal.SIGXCPU:
            return RunnerError("timeout", "the model needs too much time")
        if code in (-signal.SIGKILL, -signal.SIGTERM):
            return RunnerError("killed", "the inference process was killed")
        return RunnerError("crash", f"the inference process ended with {code}")
