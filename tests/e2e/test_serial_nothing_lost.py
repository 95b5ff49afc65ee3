"""Nothing lost, nothing twice, from BMSs on serial lines: agent, cloud and the BMSs themselves killed by a seed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from e2e.agents import Agent
from e2e.kills import kill_each, kill_seed
from e2e.stack import Part, Stack, ours
from e2e.whole import assert_an_agent_is_whole
from waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KILLS = 8
LINES = {"jbd": (), "jk02": (1, 2)}
"""A port for each language: the addresses of its packs, () = a pack that needs none."""
MAPPING = """protocol = "{}"
[fields]
pack_v = {{ from = "pack_v", resolution = 0.01 }}
current_a = {{ from = "current_a" }}
soc_bms = {{ from = "soc_bms" }}
cell_v = {{ from = "cell_v[{{}}]", count = 8 }}
temp_c = {{ from = "temp_c[{{}}]", count = 2 }}
"""


@dataclass(frozen=True, kw_only=True)
class SerialAgent(Agent):
    """An agent whose packs are on serial lines."""

    def toml(self, folder: Path, urls: dict[str, str], model: bool) -> str:
        head = Agent(**{**self.__dict__, "cars": range(0)}).toml(folder, urls, model)
        return head + "".join(self._source(folder, name, at) for name, ats in LINES.items() for at in ats or (None,))

    def _source(self, folder: Path, name: str, address: int | None) -> str:
        (folder / f"{name}.toml").write_text(MAPPING.format(name))
        at = "" if address is None else f"address = {address}\n"
        return (
            f'[[source]]\npack_id = "{name}-{address or 0}"\ntype = "serial"\nchannel = "{folder / name}.port"\n'
            f'{at}mapping = "{name}.toml"\n'
        )


def _virtual(folder: Path, name: str, addresses: Sequence[int]) -> list[str]:
    at = ["--address", *map(str, addresses)] if addresses else []
    return ours("firmware_bridge", "virtual", "--protocol", name, "--cells", "8", "--pty", f"{folder / name}.port", *at)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with Stack(tmp_path, agents=[SerialAgent(cars=range(0))]) as stack:
        for name, addresses in LINES.items():
            port = Path(f"{tmp_path / name}.port")
            stack.parts[name] = Part(partial(_virtual, tmp_path, name, addresses), port.exists)
        stack.start("database", "api", *LINES, "agent")
        yield stack


def test_zero_lost_and_zero_twice_whatever_is_killed(stack: Stack) -> None:
    rng = random.Random(kill_seed())
    plan = ["agent"] * KILLS + ["api"] * 3 + ["database"] * 2 + [*LINES] * 2
    rng.shuffle(plan)
    counts = "SELECT pack_id, count(*) FROM samples GROUP BY pack_id"
    until("rows of every pack arrive", lambda: len(stack.query(counts)) == 3, 60)
    kill_each(stack, plan, rng, up_s=(0.5, 3.0), down_s=(0.0, 1.0))
    time.sleep(5)
    assert_an_agent_is_whole(stack, "agent", least_rows=3 * 20, least_boots=KILLS // 2)
    rows = dict(stack.query(counts))
    assert set(rows) == {"jbd-0", "jk02-1", "jk02-2"} and min(rows.values()) > 10, rows
    # Each pack's values are its own: the two on one line are at different states of charge.
    soc = dict(stack.query("SELECT pack_id, avg(soc_bms) FROM samples WHERE soc_bms IS NOT NULL GROUP BY pack_id"))
    assert abs(soc["jk02-1"] - soc["jk02-2"]) > 0.1, soc
    spread = stack.query("SELECT pack_id, max(soc_bms) - min(soc_bms) FROM samples GROUP BY pack_id")
    assert all(each < 0.1 for pack, each in spread), spread
