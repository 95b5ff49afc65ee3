"""The commands of `python -m edge`: each `add_*` declares one, its `run` does it and returns the exit code."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TextIO

from edge.config import Config, find_config, load_config
from shared.errors import ConfigError
from shared.fields import ID

Commands = Any  # what argparse's add_subparsers returns
_CONFIG_HELP: Final = "edge.toml (default: ./edge.toml, then what `make run` wrote, then /etc/packtwin/edge.toml)"


def add_run(commands: Commands) -> None:
    """`edge run`"""
    parser = _command(
        commands,
        "run",
        "reads the buses, keeps every sample, sends them up",
        "edge run --config edge.toml",
        "TELEMETRY_INTERVAL=5 edge run",
    )
    parser.add_argument("--config", metavar="F", help=_CONFIG_HELP)
    parser.set_defaults(run=_run)


def add_status(commands: Commands) -> None:
    """`edge status`"""
    parser = _command(
        commands,
        "status",
        "what is read, stored, sent and pending, also when no agent runs",
        "edge status --config edge.toml",
        "edge status --json --outbox",
    )
    parser.add_argument("--config", metavar="F", help=_CONFIG_HELP)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--outbox", action="store_true", help="also what is in the outbox's files")
    parser.set_defaults(run=_status)


def add_replay(commands: Commands) -> None:
    """`edge replay`"""
    parser = _command(
        commands,
        "replay",
        "sends a CSV, a log or a file of records; 0 only when all of it is acknowledged",
        "edge replay trip.csv.gz --mapping trip.toml --config edge.toml",
        "edge replay drive.log --speed 10 --mapping mapping.toml -o samples.jsonl",
        "edge replay LIFE.jsonl.gz --config edge.toml",
    )
    parser.add_argument(
        "file",
        metavar="F",
        help="a CSV with a mapping that has a table [csv], a log of frames (as of `edge decode`), or NAME.jsonl with a "
        "Session or Event a line; .gz too",
    )
    parser.add_argument("--speed", type=_speed, default=None, metavar="N|max", help="times real time (default: max)")
    parser.add_argument("--config", metavar="C", help=_CONFIG_HELP)
    parser.add_argument("--mapping", metavar="M", help="mapping.toml (default: that of the pack in edge.toml)")
    parser.add_argument(
        "--pack", metavar="ID", help="pack to send as (default: the mapping's, edge.toml's, file's name)"
    )
    parser.add_argument("--channel", metavar="NAME", help="channel of a log (default: its first)")
    parser.add_argument("-o", dest="out", metavar="samples.jsonl", help="write the samples (- = stdout), send nothing")
    parser.set_defaults(run=_replay)


def _command(commands: Commands, name: str, what: str, *examples: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=what,
        description=what[0].upper() + what[1:] + ".",
        epilog="examples:\n" + "\n".join(f"  python -m {example}" for example in examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def _speed(text: str) -> float | None:
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not 0.001 <= speed <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} must be a number > 0, or max")
    return speed


def _run(args: argparse.Namespace) -> int:
    from edge.agent import run_agent

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    return run_agent(load_config(find_config(args.config)))


def _status(args: argparse.Namespace) -> int:
    from edge.outbox.inspect import tables
    from edge.status import ask_running, stopped_status

    config = load_config(find_config(args.config))
    status = ask_running(config) or stopped_status(config)
    if args.outbox:
        status["outbox_files"] = tables(config.outbox.cold_dir, config.outbox.hot_dir)
    if args.json:
        json.dump(status, sys.stdout, indent=2)
        print()
    else:
        print("\n".join(_lines(status)))
    return 0


def _lines(status: dict[str, Any]) -> Iterable[str]:
    """The status for a person."""
    counts, outbox = status["samples"], status["outbox"]
    state = f"runs, up {status['uptime_s']:.0f} s" if status["running"] else "does not run"
    yield f"{status['device']}  {state}"
    if status["clock"]:
        trusted = f"trusted ({status['clock']['source']})" if status["clock"]["trusted"] else "not trusted yet"
        yield f"clock    {trusted}"
    uplink = status["uplink"]
    if uplink:
        how = "connected" if uplink["connected"] else uplink["problem"] or "not connected yet"
        yield f"uplink   {uplink['url']}  {uplink['mode']}  {how}"
    if mirror := status.get("readable"):
        yield f"readable {mirror['broker']}  {mirror['problem'] or 'connected'}"
    yield "samples  " + "  ".join(f"{name} {count}" for name, count in counts.items())
    age = "" if outbox["oldest_age_s"] is None else f"  oldest {outbox['oldest_age_s']:.0f} s"
    yield f"outbox   {outbox['hot_bytes'] >> 10} KiB in memory  {outbox['cold_bytes'] >> 10} KiB on disk{age}"
    if outbox["problem"]:
        yield f"         {outbox['problem']}"
    if recorder := status.get("recorder"):
        yield f"recorder {_recorder(recorder)}"
    yield f"model    {_model(status['model'])}"
    for pack in status["packs"]:
        source = pack["source"]
        what = source["problem"] or f"{source['state']}, {source['frames_per_s']:.0f} frames/s"
        yield f"{pack['pack_id']}  {source['interface']} {source['channel']}: {what}{_lost(source)}"
        yield from (f"         {note}" for note in source["notes"])
        yield f"         {_life(pack['estimate'])}"
    for name, file in status.get("outbox_files", {}).items():
        yield f"{name} file {file['file']} ({file['bytes'] >> 10} KiB)"
        yield "  rows: " + "  ".join(f"{table} {count}" for table, count in file["tables"].items())
        for table in ("boots", "blocks", "rejects"):
            for row in file[table]:
                yield f"  {table[:-1]:6} " + "  ".join(f"{key} {value}" for key, value in row.items())


def _lost(source: dict[str, Any]) -> str:
    """What the bus lost and complained of; empty when nothing."""
    parts = [f"{source['drops']} frames lost"] if source["drops"] else []
    parts += [f"{count} x {kind.replace('_', ' ')}" for kind, count in source["error_frames"].items()]
    return "".join(f", {part}" for part in parts)


def _recorder(recorder: dict[str, Any]) -> str:
    parts = [f"{recorder['bytes'] >> 10} KiB in memory, {recorder['covers_s'] or 0:.0f} s"]
    parts += [f"{recorder['kept']} captures kept"] if recorder["kept"] else []
    parts += [f"{recorder['given_up']} given up"] if recorder["given_up"] else []
    parts += [f"{recorder['passed_over']} alarms passed over"] if recorder["passed_over"] else []
    return "  ".join([*parts, *([recorder["problem"]] if recorder["problem"] else [])])


def _model(model: dict[str, Any]) -> str:
    active, inference = model["active"], model["inference"]
    parts = [active["model_id"] if active else "none"]
    if inference:
        parts.append(f"process {inference['pid']}" if inference["state"] == "running" else inference["state"])
        parts += [inference["problem"]] if inference["problem"] else []
    if model["candidate"]:
        parts.append(f"{model['candidate']['model_id']} is on its way")
    return "  ".join([*parts, *([model["problem"]] if model["problem"] else [])])


def _life(said: dict[str, Any] | None) -> str:
    if said is None:
        return "no prediction yet"
    if said["rul_cycles"] is None:
        return f"no prediction: {said['reason']}"
    interval = f"{said['rul_cycles_lo']:.0f} to {said['rul_cycles_hi']:.0f}"
    outside = "" if said["in_domain"] else ", outside of what the model has learned from"
    return (
        f"{said['rul_cycles']:.0f} cycles left (90 %: {interval}), "
        f"failure probability {100 * said['failure_probability']:.1f} %{outside}"
    )


def _replay(args: argparse.Namespace) -> int:
    from edge.capture.exported import state_beside
    from edge.capture.replay import capture_samples, means_the_same
    from edge.clock import Clock
    from edge.logs import open_log
    from edge.mapping import load_mapping
    from edge.progress import ProgressLine
    from edge.record_files import is_record_file
    from edge.replay import MOST_PENDING, Pace, opened_output, send_samples, write_samples
    from edge.sources.replay import Notes, content_boot, count_lines, csv_samples
    from edge.sources.replay_log import log_samples

    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    path = Path(args.file)
    if is_record_file(path):
        return _replay_records(args, path)
    config = load_config(find_config(args.config)) if args.config or not args.out else None
    state = state_beside(path)
    if state is not None and args.pack is None:
        args.pack = state.pack_id
    mapping_path, pack_id = _mapping_and_pack(args, config)
    mapping = load_mapping(mapping_path)
    pack_id = pack_id or (mapping.csv.pack_id if mapping.csv else None) or path.name.split(".")[0]
    if not ID.fullmatch(pack_id):
        raise ConfigError(f'"{pack_id}" cannot be the id of a pack: give one with --pack')
    notes = Notes()
    told = ""
    if mapping.csv:
        rows, total = csv_samples(path, mapping, pack_id, notes), count_lines(path) - 1
    elif state is not None:
        rows, total = capture_samples(path, state, mapping, pack_id), state.samples
        told = f"capture {state.path.read_bytes().hex()}"
        if not means_the_same(state, mapping):
            print(f"{mapping.path} is not what this was captured with: samples may differ", file=sys.stderr)
    else:
        sample_s = config.sample_s if config else 1.0
        rows, total = log_samples(open_log(path), mapping, pack_id, sample_s, args.channel, notes), 0
        told = f"{sample_s} {args.channel}"
    clock = Clock("system")
    chunks = Pace(args.speed, clock).chunks(rows)
    line = ProgressLine(pack_id, total, lambda: clock.mono_ns() / 1e9)
    if args.out:
        with opened_output(args.out) as out:
            done = write_samples(chunks, out, line.show)
    else:
        assert config is not None
        done = send_samples(
            chunks,
            device=config.device,
            boot=content_boot(path, mapping, pack_id, told),
            transport=_transport(config),
            clock=clock,
            shown=line.show,
            most_pending=MOST_PENDING if args.speed is None else 0,
        ).acked
    line.end(done)
    _tell(notes, sys.stderr)
    return 0


def _replay_records(args: argparse.Namespace, path: Path) -> int:
    """Sessions and Events of a file, as fast as Receipts allow: they say themselves of which pack and when."""
    from edge.clock import Clock
    from edge.progress import ProgressLine
    from edge.record_files import checked, records
    from edge.replay import chunked, send_samples

    if args.out or args.speed or args.mapping or args.pack or args.channel:
        raise ConfigError(f"{path} holds records that are sent as they are: give it with --config alone")
    config = load_config(find_config(args.config))
    transport = _transport(config)
    whole = checked(path)
    clock = Clock("system")
    line = ProgressLine(path.name, whole.records, lambda: clock.mono_ns() / 1e9)
    done = send_samples(
        chunked(records(path)),
        device=config.device,
        boot=whole.boot,
        transport=transport,
        clock=clock,
        shown=line.show,
    ).acked
    line.end(done)
    return 0


def _mapping_and_pack(args: argparse.Namespace, config: Config | None) -> tuple[Path, str | None]:
    """The mapping file and, where arguments or edge.toml say so, the pack."""
    if args.mapping:
        return Path(args.mapping), args.pack
    if config is None:
        raise ConfigError("say what the file's names mean: give --mapping M, or --config C")
    for source in config.sources:
        if args.pack in (None, source.pack_id):
            return source.mapping_path, source.pack_id
    packs = ", ".join(source.pack_id for source in config.sources)
    raise ConfigError(f"{config.path} has no pack {args.pack}: it has {packs}; or give --mapping")


def _transport(config: Config) -> Any:
    from edge.transport import transport_of

    transport = transport_of(config.uplink, config.device, announce=False)
    if transport is None:
        raise ConfigError(f"{config.path}: [uplink] url is not set: say where to send, or write a file with -o")
    return transport


def _tell(notes: Any, out: TextIO) -> None:
    if notes.unmapped:
        print(f"columns that are not mapped: {', '.join(notes.unmapped)}", file=out)
    if notes.other_channels:
        print(f"other channels in the log, left out: {', '.join(notes.other_channels)}", file=out)
    for line in notes.log:
        print(line, file=out)
    for reason, count in (notes.errors or {}).items():
        print(f"{count} frames could not be decoded: {reason}", file=out)
