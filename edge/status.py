"""What there is to know of the agent, as one JSON-able dict: the page, the metrics and `edge status` show only this."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge.books import Books, Tally
from edge.config import Config
from edge.model_command import models_folder, stored_status
from edge.outbox.inspect import read_books
from shared.records import boot_hex

if TYPE_CHECKING:
    from edge.agent import Agent

RUNNING_FILE: Final = "running.json"
"""Beside the hot outbox while the agent runs: its pid and where its page is."""
COUNTS: Final = ("acquired", "filtered", "rejected", "stored", "acked", "refused", "pending", "evicted", "lost")
_SECOND_NS: Final = 1_000_000_000
_ASK_S: Final = 3.0


def agent_status(agent: Agent) -> dict[str, Any]:
    """The status of a running agent."""
    config, clock = agent.config, agent.clock
    now_ns = clock.mono_ns()
    offset_ns = clock.offset_ns()
    status = {
        "device": config.device,
        "running": True,
        "version": installed_version(),
        "boot": boot_hex(agent.outbox.boot),
        "uptime_s": round((now_ns - agent.started_ns) / _SECOND_NS, 1),
        "sample_s": config.sample_s,
        "prediction_s": config.prediction_s,
        "clock": {
            "trusted": clock.trusted,
            "source": clock.source,
            "t_ns": None if offset_ns is None else now_ns + offset_ns,
        },
        "uplink": _uplink(agent, now_ns),
        "readable": _readable(agent),
        "model": agent.models.status(),
        "recorder": agent.recorder.status() if agent.recorder else None,
        "packs": [
            {**lane.status(now_ns), "simulated_past": lane.config.pack_id in agent.packs.simulated}
            for lane in agent.lanes
        ],
    }
    return status | _accounts(agent.outbox.books(), config, agent.storing.problem)


def stopped_status(config: Config) -> dict[str, Any]:
    """The status of an agent that does not run, from the files of its outbox."""
    books = read_books(config.outbox.cold_dir, config.outbox.hot_dir)
    if books is None:
        books = Books.of(Tally(), 0, pending_other=0, hot_bytes=0, cold_bytes=0, oldest_age_s=None, boot=0, last_seq=-1)
    status = {
        "device": config.device,
        "running": False,
        "version": installed_version(),
        "boot": boot_hex(books.boot) if books.boot else None,
        "clock": None,
        "uplink": None,
        "readable": None,
        "model": stored_status(models_folder(config)) | {"problem": None, "inference": None},
        "recorder": None,
        "packs": [],
    }
    return status | _accounts(books, config, None)


def note_running(path: Path, told: Mapping[str, Any]) -> None:
    """Leaves word of where the agent can be asked; for the owner only, as the key opens more than its page does."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        json.dump(told, file)


def running(config: Config) -> dict[str, Any]:
    """What `note_running` left. OSError, ValueError: no agent runs, or not where we may look."""
    path = (config.outbox.hot_dir or config.outbox.cold_dir) / RUNNING_FILE
    told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return told


def ask_running(config: Config) -> dict[str, Any] | None:
    """The status that a running agent tells of itself; None when none runs on this outbox."""
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{running(config)['page']}/status.json", timeout=_ASK_S) as answer:
            status: dict[str, Any] = json.load(answer)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return status if status.get("device") == config.device else None


def installed_version() -> str:
    """packtwin's version, `unknown` when it runs from a folder that was never installed."""
    try:
        return version("packtwin")
    except PackageNotFoundError:
        return "unknown"


def _uplink(agent: Agent, now_ns: int) -> dict[str, Any] | None:
    if agent.uplink is None:
        return None
    told = asdict(agent.uplink.state)
    last_ok_ns = told.pop("last_ok_mono_ns")
    told["last_ok_age_s"] = None if last_ok_ns is None else max(now_ns - last_ok_ns, 0) / _SECOND_NS
    return {"url": agent.config.uplink.url, **told}


def _readable(agent: Agent) -> dict[str, Any] | None:
    """Where live values for other software go; None = nowhere. problem: None = they do."""
    config = agent.config.readable
    if config is None or agent.readable is None:
        return None
    return {"broker": f"{config.host}:{config.port}", "problem": agent.readable.problem}


def _accounts(books: Books, config: Config, problem: str | None) -> dict[str, Any]:
    """The outbox and its books; the contract's metric names stand beside the short ones."""
    counts = {name: getattr(books, name) for name in COUNTS}
    return {
        "samples": counts,
        **{f"packtwin_samples_{name}": count for name, count in counts.items()},
        "outbox": {
            "problem": problem,
            "pending_other": books.pending_other,
            "hot_bytes": books.hot_bytes,
            "cold_bytes": books.cold_bytes,
            "max_bytes": config.outbox.max_bytes,
            "oldest_age_s": books.oldest_age_s,
            "last_seq": books.last_seq,
            "hot_dir": str(config.outbox.hot_dir) if config.outbox.hot_dir else None,
            "cold_dir": str(config.outbox.cold_dir),
        },
    }
