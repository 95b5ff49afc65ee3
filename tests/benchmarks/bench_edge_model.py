"""Memory, CPU and speed of the edge with the model that ships: agent, inference process, and a probe beside them.

Row 10: each process <= 128 MB RSS; the sum of PSS <= 180 MB steady and <= 260 MB while a new model is probed. PSS is
also given as it would be if nothing else on the machine shared the libraries (`alone`), as on a real box.
`python tests/benchmarks/bench_edge_model.py [SECONDS]`
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fakes.bundles import make_bundle  # noqa: E402
from fakes.cloud import FakeCloud  # noqa: E402
from fakes.image_server import ImageServer, serving  # noqa: E402
from fakes.running import Bench, write_pasts  # noqa: E402
from fakes.tuf_repo import TufRepo  # noqa: E402

from edge.inference import Runner  # noqa: E402
from shared import bundle as bundles  # noqa: E402
from shared.features import NAMES  # noqa: E402

EACH_MB, STEADY_MB, PROBE_MB = 128.0, 180.0, 260.0
SECONDS = 30.0
CARS = 3
LARGE_BYTES = 4_000_000


@dataclass
class Memory:
    """MB of one moment, or the most of many."""

    agent_rss: float = 0.0
    child_rss: float = 0.0  # the largest of them
    pss: float = 0.0
    alone: float = 0.0
    processes: int = 0

    def most(self, other: Memory) -> Memory:
        return Memory(*(max(getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__))


def descendants(pid: int) -> list[int]:
    """Children of a process and theirs; what ends meanwhile is left out."""
    found = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
                for child in (task / "children").read_text().split():
                    found += [int(child), *descendants(int(child))]
    return found


def mappings(pid: int) -> Iterator[tuple[str, float, float, float]]:
    """(path, RSS, PSS, private) in MB of each mapping; nothing for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    except OSError:
        return
    path, sizes = "", dict[str, float]()
    for line in [*lines, "0-0 end"]:
        key, _, value = line.partition(":")
        if " " not in key:
            sizes[key] = int(value.split()[0]) * 1024 / 1e6 if value.endswith(" kB") else 0.0
            continue
        if sizes:
            private = sizes["Private_Clean"] + sizes["Private_Dirty"]
            yield path, sizes["Rss"], sizes["Pss"], private
        path, sizes = " ".join(line.split()[5:]), {}


def memory(agent: int) -> Memory:
    """Of the agent and all that it has started, now."""
    told = Memory()
    shared: dict[str, float] = defaultdict(float)  # path -> what any of them shares with anybody
    for pid in [agent, *descendants(agent)]:
        rows = list(mappings(pid))
        rss = sum(row[1] for row in rows)
        told.pss += sum(row[2] for row in rows)
        told.alone += sum(row[3] for row in rows)
        told.processes += bool(rows)
        common: dict[str, float] = defaultdict(float)
        for path, held, _, private in rows:
            common[path] += held - private
        for path, mb in common.items():
            shared[path] = max(shared[path], mb)
        if pid == agent:
            told.agent_rss = rss
        else:
            told.child_rss = max(told.child_rss, rss)
    told.alone += sum(shared.values())
    return told


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Ring:
    """An agent with cars, and the cloud that gives it models."""

    def __init__(self, folder: Path, server: ImageServer) -> None:
        self.bench, self.server = Bench(folder, CARS), server
        self.repo = TufRepo(server.folder, time.time_ns())
        (folder / "root.json").write_bytes(self.repo.root)
        self.bench.car()
        pasts = write_pasts(folder / "pasts", self.bench.packs)
        settings = 'trust_root = "root.json"\n'
        self.agent = self.bench.agent(server.url, settings, past=pasts, sample_s=1.0).pid

    def publish(self, body: bytes) -> str:
        """Signs a bundle and tells the agent to run it."""
        manifest = bundles.read(body).manifest
        custom = {name: getattr(manifest, name) for name in ("model_id", "counter", "feature_schema", "hardware")}
        self.repo.add(f"{manifest.model_id}.bundle", body, custom | {"chemistry": list(manifest.chemistry)})
        self.repo.publish()
        self.server.desired = manifest.model_id
        return manifest.model_id

    def proven(self, model_id: str) -> bool:
        """Whether the model has proven itself and answers for every pack."""
        status = self.bench.page() or {}
        packs = status.get("packs", [])
        answered = bool(packs) and all((pack["estimate"] or {}).get("model_id") == model_id for pack in packs)
        return answered and status["model"]["last"]["step"] == "proven"

    def watch(self, until: Callable[[], bool], pause_s: float, limit_s: float = 120.0) -> Memory:
        """The most memory until something is so."""
        most, deadline, look = Memory(), time.monotonic() + limit_s, 0.0
        while time.monotonic() < deadline:
            most = most.most(memory(self.agent))
            if time.monotonic() > look:  # the page costs more than a look at /proc
                if until():
                    return most
                look = time.monotonic() + 0.5
            time.sleep(pause_s)
        raise AssertionError(f"it took too long: {(self.bench.folder / 'edge.log').read_text()[-2000:]}")


@contextmanager
def ring(folder: Path) -> Iterator[Ring]:
    """A running ring; ends with the block."""
    server = ImageServer(folder / "image")
    server.cloud = FakeCloud(time.time_ns)
    with serving(server):
        made = Ring(folder, server)
        try:
            yield made
        finally:
            made.bench.close()


def champion() -> bytes:
    """The bundle that ships."""
    return next((ROOT / "cloud" / "champion").glob("*.bundle")).read_bytes()


def measure(folder: Path, seconds: float) -> tuple[Memory, Memory, float, float]:
    """(steady, while probing, CPU share of the agent, of the inference process)."""
    with ring(folder) as made:
        first = made.publish(champion())
        made.watch(lambda: made.proven(first), 0.2)
        (child,) = descendants(made.agent)
        before, since = (cpu_s(made.agent), cpu_s(child)), time.monotonic()
        steady = made.watch(lambda: time.monotonic() - since > seconds, 0.5, seconds + 60)
        elapsed = time.monotonic() - since
        shares = [(cpu_s(pid) - was) / elapsed for pid, was in zip((made.agent, child), before, strict=True)]
        probing = Memory()
        counter = bundles.read(champion()).manifest.counter
        for body in (
            bundles.renumbered(champion(), counter + 1),
            make_bundle(counter + 2, "large", pad_bytes=LARGE_BYTES),
            bundles.renumbered(champion(), counter + 3),
        ):
            name = made.publish(body)
            probing = probing.most(made.watch(lambda name=name: made.proven(name), 0.01))  # type: ignore[misc]
        return steady, probing, *shares


def speed(folder: Path, rounds: int = 2000) -> tuple[float, float, float]:
    """(s to start, p50 and p99 in us of one answer to one row, pipes and all)."""
    path = folder / "champion.bundle"
    path.write_bytes(champion())
    began = time.monotonic()
    runner = Runner(path)
    start_s = time.monotonic() - began
    row, took = np.full((1, len(NAMES)), np.nan), []
    try:
        for _ in range(rounds):
            at = time.perf_counter()
            runner.predict(row)
            took.append(time.perf_counter() - at)
    finally:
        runner.close()
    return start_s, float(np.percentile(took, 50) * 1e6), float(np.percentile(took, 99) * 1e6)


def fits(told: Memory, limit_mb: float) -> bool:
    """Whether the limits of row 10 hold."""
    return max(told.pss, told.alone) <= limit_mb and max(told.agent_rss, told.child_rss) <= EACH_MB


def main(arguments: list[str]) -> int:
    """Prints the numbers; 1 when a limit does not hold."""
    seconds = float(arguments[0]) if arguments else SECONDS
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder = Path(name)
        start_s, p50_us, p99_us = speed(folder)
        steady, probing, agent_share, child_share = measure(folder, seconds)
    print(f"inference process: starts in {start_s:.2f} s; one row through the pipes and 4 graphs: ", end="")
    print(f"p50 {p50_us:.0f} us, p99 {p99_us:.0f} us")
    print(f"CPU of one core, {CARS} cars at 1 Hz, a prediction every 5 s: ", end="")
    print(f"agent {agent_share:.2%}, inference {child_share:.2%}")
    held = True
    for what, told, limit_mb in (("steady", steady, STEADY_MB), ("probe", probing, PROBE_MB)):
        held &= (ok := fits(told, limit_mb))
        print(
            f"{what:6}: RSS agent {told.agent_rss:.0f}, largest child {told.child_rss:.0f} (limit {EACH_MB:.0f}); ",
            end="",
        )
        print(
            f"PSS of {told.processes} processes {told.pss:.0f}, alone {told.alone:.0f} (limit {limit_mb:.0f}) MB: ",
            end="",
        )
        print("ok" if ok else "TOO MUCH")
    return int(not held)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
