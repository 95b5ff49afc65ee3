"""`edge model status|rollback`: where the models of this device stand, also when no agent runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edge.clock import Clock
from edge.config import Config, find_config, load_config
from edge.ota import decide
from edge.ota.state import OPERATOR, Model, State, status_of
from edge.ota.store import Folder
from shared.errors import PacktwinError

MODELS_DIR: Final = "models"
"""Below edge.toml's data_dir."""
_ANSWER_S: Final = 10.0
_LOOK_S: Final = 0.05
_EXAMPLES: Final = ("edge model status --json", "edge model rollback --config edge.toml")


def add_model(commands: Any) -> None:
    """`edge model status|rollback`"""
    what = "Where the models of this device stand, and back to the one before."
    parser: argparse.ArgumentParser = commands.add_parser(
        "model",
        help="where the models of this device stand; back to the one before",
        description=what,
        epilog="examples:\n" + "\n".join(f"  python -m {example}" for example in _EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    status = actions.add_parser("status", help="what runs, what ran before, what is on its way")
    status.add_argument("--json", action="store_true", help="one JSON object on stdout")
    status.set_defaults(run=_status)
    rollback = actions.add_parser(
        "rollback", help="run the model before again; only one with a higher counter is taken then"
    )
    rollback.set_defaults(run=_rollback)
    for action in (status, rollback):
        action.add_argument("--config", metavar="F", help="edge.toml (default: as of `edge run`)")


def models_folder(config: Config) -> Path:
    """Where the models of this device lie."""
    return config.outbox.cold_dir / MODELS_DIR


def stored_status(folder: Path) -> dict[str, Any]:
    """What `edge model status --json` prints, from the files; an agent need not run."""
    return status_of(Folder(folder).load())


def _status(args: argparse.Namespace) -> int:
    state = Folder(models_folder(load_config(find_config(args.config)))).load()
    if args.json:
        json.dump(status_of(state), sys.stdout, indent=2)
        print()
    else:
        print("\n".join(_lines(state)))
    return 0


def _lines(state: State) -> Iterator[str]:
    if state.active is None:
        yield "active     none: no model has been installed here"
    else:
        yield f"active     {_said(state.active)}  {'proven' if state.active.proven else 'not proven yet'}"
    if state.previous is not None:
        yield f"previous   {_said(state.previous)}"
    if state.candidate is not None:
        sha256 = f"  {state.candidate.sha256[:12]}" if state.candidate.sha256 else ""
        yield f"candidate  {state.candidate.model_id}{sha256}  {state.candidate.step}"
    if state.last is not None:
        reason = f" ({state.last.reason})" if state.last.reason else ""
        when = f"  {_iso(state.last.t_ns)}" if state.last.t_ns is not None else ""
        yield f"last       {state.last.model_id}  {state.last.step}{reason}{when}"
    yield f"floor      {max(state.floor.counter, state.floor.above)}"


def _said(model: Model) -> str:
    return f"{model.model_id}  {model.sha256[:12]}"


def _iso(t_ns: int) -> str:
    return datetime.fromtimestamp(t_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _rollback(args: argparse.Namespace) -> int:
    config = load_config(find_config(args.config))
    folder = Folder(models_folder(config))
    before = folder.load()
    if before.active is None or before.previous is None:
        running = before.active.model_id if before.active else "no model"
        raise PacktwinError(f"{running} runs and there is none before it to go back to")
    handle = folder.lock()
    if handle is not None:
        try:
            _by_hand(folder, Clock(config.clock).t_ns())
        finally:
            os.close(handle)
    else:
        _by_agent(folder, before.active)
    after = folder.load()
    if after.active == before.active:
        raise PacktwinError(f"{before.active.model_id} still runs: the agent could not go back, see its log")
    print(f"{before.active.model_id} -> {after.active.model_id if after.active else 'none'}")
    return 0


def _by_hand(folder: Folder, t_ns: int | None) -> None:
    """No agent runs: the next one that starts tells the cloud."""
    state = folder.load()
    if state.active is not None and state.previous is not None:
        folder.save(decide.rolled_back(state, OPERATOR, t_ns))


def _by_agent(folder: Folder, active: Model) -> None:
    """An agent has the folder: ask it, and wait until it has done so."""
    folder.request(active.sha256)
    never = threading.Event()
    for _ in range(int(_ANSWER_S / _LOOK_S)):
        if folder.requested() is None:
            return
        never.wait(_LOOK_S)
    folder.answered()
    raise PacktwinError(f"the agent did not answer within {_ANSWER_S:.0f} s and nothing was changed: is it stuck?")
