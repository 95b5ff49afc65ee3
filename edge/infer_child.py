"""The process that runs a model: started by `edge.inference`, talks over its stdin and stdout, holds nothing else.

It is a program of its own, not imported by the agent: a model that crashes, hangs or eats memory costs this process.
It imports numpy and onnxruntime only, takes its own rights away before it sees the model (memory, files, priority), and
ends with its parent.

Frames both ways: u32 length (little-endian), then the body.
- first, to the child: JSON {"models": [names], "memory_mb", "cpu_s"}, then one frame with the ONNX of each;
  back: JSON {"runtime": version} or {"error": "crash" | "runtime", "detail"}
- then, to the child: u32 rows, u32 columns, float32 row by row (NaN = unknown); no rows = are you there?
  back: one byte 0, then float32 per model and row, model by model; or one byte 1 and a text: it did not work.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO, Final

LEAST_RUNTIME: Final = (1, 27)
"""Older ones read files that a model names, and take indices out of range."""
_PR_SET_PDEATHSIG: Final = 1
_LENGTH: Final = struct.Struct("<I")
_SHAPE: Final = struct.Struct("<II")
_NICE: Final = 5
_DETAIL_CHARS: Final = 200


def main(parent_pid: int) -> int:
    """Serves until stdin ends; 1 when no model could be loaded."""
    _die_with(parent_pid)
    source, sink = sys.stdin.buffer, _own_stdout()
    told = json.loads(_read(source))
    bodies = [_read(source) for _ in told["models"]]
    try:
        runtime = _runtime()
        _limit(told["memory_mb"], told["cpu_s"])
        sessions = [_Session(runtime, body) for body in bodies]
    except Exception as error:
        kind = "runtime" if isinstance(error, ImportError) else "crash"
        _write(sink, json.dumps({"error": kind, "detail": _plain(error)}).encode())
        return 1
    bodies.clear()
    _write(sink, json.dumps({"runtime": runtime.__version__}).encode())
    while True:
        asked = _read(source)
        try:
            answer = b"\0" + _answer(sessions, asked)
        except Exception as error:
            answer = b"\1" + _plain(error).encode()
        _write(sink, answer)


class _Session:
    """One ONNX graph: one input [rows, columns], and of its outputs the last one is the answer."""

    def __init__(self, runtime: Any, body: bytes) -> None:
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.log_severity_level = 4
        self._session = runtime.InferenceSession(body, options, providers=["CPUExecutionProvider"])
        (given,) = self._session.get_inputs()
        self._input, self._output = given.name, self._session.get_outputs()[-1].name

    def answer(self, rows: Any) -> bytes:
        """float32[rows]: a column, or of a classifier's [rows, 2] the probability of class 1."""
        (values,) = self._session.run([self._output], {self._input: rows})
        columns = values.reshape(len(rows), -1)
        if columns.shape[1] not in (1, 2):
            raise ValueError(f"an output of {columns.shape[1]} columns")
        answer: bytes = columns[:, -1].astype("<f4").tobytes()
        return answer


def _answer(sessions: list[_Session], asked: bytes) -> bytes:
    import numpy as np

    rows, columns = _SHAPE.unpack_from(asked)
    if not rows:
        return b""
    values = np.frombuffer(asked, "<f4", rows * columns, _SHAPE.size).reshape(rows, columns)
    return b"".join(session.answer(values) for session in sessions)


def _runtime() -> Any:
    """onnxruntime, if it is new enough; ImportError."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else it keeps a data base in the home folder and sends it to its maker
    runtime: Any = importlib.import_module("onnxruntime")
    found = tuple(int(part) for part in runtime.__version__.split(".")[:2])
    if found < LEAST_RUNTIME:
        least = ".".join(map(str, LEAST_RUNTIME))
        raise ImportError(f"onnxruntime {runtime.__version__} is installed, at least {least} is needed")
    return runtime


def _limit(memory_mb: float, cpu_s: int | None) -> None:
    """From here on: so much memory, no file can be opened or written, no core dump; killed first when memory ends."""
    with open("/proc/self/status", encoding="ascii") as file:
        status = dict(line.split(":", 1) for line in file)
    held, mapped = (int(status[key].split()[0]) << 10 for key in ("VmRSS", "VmSize"))
    room = mapped + max(int(memory_mb * 1e6) - held, 0)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("1000")
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    for kind, limit in (
        (resource.RLIMIT_AS, room),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    if cpu_s is not None:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))  # SIGXCPU says what it was, SIGKILL would not


def _die_with(parent_pid: int) -> None:
    """Lets the kernel kill this process when its parent dies, whatever it does then; deaf to Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before we asked
        sys.exit(0)


def _own_stdout() -> BinaryIO:
    """The pipe to the parent, where no library can print into it."""
    sink = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return sink


def _read(source: BinaryIO) -> bytes:
    """The body of the next frame; ends the process when there is none."""
    length = source.read(_LENGTH.size)
    body = source.read(_LENGTH.unpack(length)[0]) if len(length) == _LENGTH.size else b""
    if len(length) < _LENGTH.size or len(body) < _LENGTH.unpack(length)[0]:
        sys.exit(0)
    return body


def _write(sink: BinaryIO, body: bytes) -> None:
    left = memoryview(_LENGTH.pack(len(body)) + body)
    while left:
        left = left[sink.write(left) :]


def _plain(error: Exception) -> str:
    if isinstance(error, MemoryError) or "bad_alloc" in str(error):
        return "out of memory"
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(char if char.isprintable() else "?" for char in text)[:_DETAIL_CHARS]


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1])))
    except BrokenPipeError:
        sys.exit(0)
