"""`edge capture list|export|trigger`: the windows of raw input that the flight recorder keeps."""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from edge.capture.store import CaptureStore, Meta
from edge.config import Config, find_config, load_config
from shared.batch import MAX_TEXT_CHARS
from shared.errors import ConfigError, PacktwinError

_ANSWER_S: Final = 10.0
_EXAMPLES: Final = (
    "edge capture trigger --note 'odd noise at 40 km/h'",
    "edge capture list",
    "edge capture export 3f81 -o drive.log",
    "edge replay drive.log --config edge.toml -o samples.jsonl",
)


def add_capture(commands: Any) -> None:
    """`edge capture list|export|trigger`"""
    parser: argparse.ArgumentParser = commands.add_parser(
        "capture",
        help="the raw input around alarms: what is kept, as a log, or keep it now",
        description="The raw input that was kept around an alarm, or because somebody asked for it.",
        epilog="examples:\n" + "\n".join(f"  python -m {example}" for example in _EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listed = actions.add_parser("list", help="what is kept here, oldest first, also when no agent runs")
    listed.add_argument("--json", action="store_true", help="one JSON object on stdout")
    listed.set_defaults(run=_list)
    export = actions.add_parser(
        "export", help="writes one as a candump log; beside it F.state.json, with which `edge replay` gives the same"
    )
    export.add_argument("id", metavar="ID", help="as `list` shows it; its beginning will do")
    export.add_argument("-o", dest="out", metavar="F.log", required=True, help="the log (- = stdout, without the rest)")
    export.set_defaults(run=_export)
    trigger = actions.add_parser("trigger", help="lets the running agent keep the window around now")
    trigger.add_argument("--pack", metavar="ID", help="of this pack only (default: of each)")
    trigger.add_argument("--note", metavar="TEXT", help="why, for those who read it later")
    trigger.set_defaults(run=_trigger)
    for action in (listed, export, trigger):
        action.add_argument("--config", metavar="F", help="edge.toml (default: as of `edge run`)")


def _store(args: argparse.Namespace) -> CaptureStore:
    config = load_config(find_config(args.config))
    return CaptureStore(config.outbox.cold_dir, config.recorder.keep, config.recorder.keep_bytes)


def _list(args: argparse.Namespace) -> int:
    store = _store(args)
    kept, lost = store.all(), store.lost()
    if args.json:
        captures = [_told(meta, store.sent(meta.id)) for meta in kept]
        json.dump({"captures": captures, "given_up": lost}, sys.stdout, indent=2)
        print()
        return 0
    print("\n".join(_lines(store, kept)) if kept else "no capture is kept here")
    if lost:
        newest = lost[-1]
        print(f"{len(lost)} older ones had to go, the last of them {newest['id']} of {newest['pack_id']}")
    return 0


def _told(meta: Meta, sent: int) -> dict[str, Any]:
    told = asdict(meta)
    del told["files"]
    return told | {"bytes": meta.size_bytes, "parts": len(meta.parts), "sent": sent}


def _lines(store: CaptureStore, kept: list[Meta]) -> Iterator[str]:
    for meta in kept:
        sent, parts = store.sent(meta.id), len(meta.parts)
        up = "sent" if sent == parts else f"{sent} of {parts} parts sent"
        yield (
            f"{meta.id}  {meta.pack_id}  {_time(meta.begin_t_ns)} to {_time(meta.end_t_ns)}  {meta.cause}  "
            f"{_amount(meta)}  {meta.samples} samples  {-(-meta.size_bytes // 1024)} KiB  {up}"
        )
        if meta.note:
            yield f"  {meta.note}"


def _amount(meta: Meta) -> str:
    """What it holds, of a bus or of a serial line."""
    return f"{meta.chunks} chunks" if meta.chunks and not meta.frames else f"{meta.frames} frames"


def _time(t_ns: int | None) -> str:
    return f"{datetime.fromtimestamp(t_ns / 1e9, UTC):%Y-%m-%d %H:%M:%S}" if t_ns is not None else "?"


def _export(args: argparse.Namespace) -> int:
    from edge.capture.exported import beside

    store = _store(args)
    meta = store.find(args.id)
    if meta is None:
        raise ConfigError(f"there is no capture {args.id}, or more than one: see `edge capture list`")
    if args.out == "-":
        for piece in store.text(meta, "log"):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return 0
    path = Path(args.out)
    files = {"log": path, "state": beside(path, "state"), "serial": beside(path, "serial")}
    for name, target in files.items():
        try:
            if name == "serial" and name not in meta.files:
                target.unlink(missing_ok=True)  # of another capture that was exported to this name
                continue
            with target.open("wb") as file:
                file.writelines(store.text(meta, name))
        except OSError as error:
            raise PacktwinError(f"{target} cannot be written: {error.strerror or error}") from None
    print(f"{path}: {_amount(meta)} of {meta.pack_id}, {meta.samples} samples", file=sys.stderr)
    return 0


def _trigger(args: argparse.Namespace) -> int:
    config = load_config(find_config(args.config))
    if args.note is not None and not (len(args.note) <= MAX_TEXT_CHARS and args.note.isprintable()):
        raise ConfigError(f"--note takes one line of at most {MAX_TEXT_CHARS} characters")
    for capture in _asked(config, {"pack_id": args.pack, "note": args.note}):
        print(f"{capture['id']}  {capture['pack_id']}  kept in {capture['wait_s']:.0f} s")
    return 0


def _asked(config: Config, wish: dict[str, Any]) -> list[dict[str, Any]]:
    """What the running agent answers to a wish."""
    from edge.page.wishes import KEY_HEADER, WISH_PATH
    from edge.status import running

    try:
        told = running(config)
        request = urllib.request.Request(
            f"{told['page']}{WISH_PATH}",
            json.dumps(wish).encode(),
            {"Content-Type": "application/json", KEY_HEADER: told["key"]},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_ANSWER_S) as answer:
            captures: list[dict[str, Any]] = json.load(answer)["captures"]
    except urllib.error.HTTPError as error:
        with error:
            sentence = error.read(1000).decode(errors="replace").strip()
        raise (ConfigError if error.code == 404 else PacktwinError)(sentence) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise PacktwinError(
            f"no agent of {config.device} answers: start it (`edge run`), or ask as the user that it runs as"
        ) from None
    return captures
