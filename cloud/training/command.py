"""`cloud train`: reads, trains, writes NAME-COUNTER.bundle and its card; publishes nothing."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from cloud.config import Config
from cloud.release import next_counter, read_bundle
from cloud.training import card, dataset, track
from cloud.training.run import STEPS, Order, Trained, train
from cloud.training.stored import from_database
from shared import bundle as bundles
from shared.bundle import CHEMISTRIES, SUFFIX
from shared.errors import ConfigError

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,30}")
_EXAMPLES: Final = """examples:
  python -m cloud train                                   1000 simulated lives
  python -m cloud train --source db --packs 1000          the database's lives, and 1000 simulated ones beside them
  python -m cloud train --source folder lives/ --seed 7   tables: pack_id, cycle, features, rul_cycles, eol_100

Writes models/NAME-COUNTER.bundle, .html (the card) and .card.json; `cloud release publish` gives it to devices.
One pack in five is frozen by its name: never learned from, only judged on."""


def add_train(commands: Any) -> None:
    """Adds `train` to the command line."""
    parser = commands.add_parser(
        "train",
        help="learn a model: remaining life with its interval, chance of the end within 100 cycles",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--source", nargs="+", default=["simulated"], metavar=("simulated|db|folder", "DIR"), help="default simulated"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws lives and rows (default 1)")
    parser.add_argument(
        "--packs", type=int, metavar="N", help="simulated lives (default 1000; with db or folder: 0, N beside them)"
    )
    parser.add_argument("--name", default="rul", help="NAME of the bundle (default rul)")
    parser.add_argument(
        "--chemistry", default="nmc", metavar="C,C", help="of the packs it is for, where the data does not say"
    )
    parser.add_argument("--against", type=Path, metavar="BUNDLE", help="compare with this champion on the frozen packs")
    parser.add_argument("--models", type=Path, metavar="DIR", help="where to write (default MODELS_DIR)")


def run_train(options: argparse.Namespace, config: Config) -> int:
    """Runs it. 0 = a bundle is written; ConfigError or ExportError and nothing is."""
    folder = options.models or config.models_dir
    champion = None if options.against is None else bundles.read(read_bundle(options.against))
    _check(options)
    with _progress() as told:
        told("read")
        data, chemistry, licence = _read(options, config)
        order = Order(
            name=options.name,
            counter=next_counter(folder, config.release_dir),
            seed=options.seed,
            chemistry=chemistry,
            licence=licence,
        )
        trained = train(data, order, champion, told)
        told("write")
        path = write(trained, folder)
    _tell(trained, path)
    files = [path.with_suffix(".html"), path.with_suffix(".card.json")]
    counts = {key: trained.card["data"][key] for key in ("packs_learned", "packs_frozen", "packs_unlabelled")}
    parameters = {"seed": order.seed, "source": " ".join(options.source), **counts}
    numbers = {key: float(value) for key, value in bundles.read(trained.body).manifest.metrics.items()}
    noted = track.note(config.mlflow_uri, order_id(trained), parameters, numbers, files)
    if noted:
        print(f"noted in MLflow ({noted.split('?')[0].split('@')[-1]})")
    return 0


def order_id(trained: Trained) -> str:
    """NAME-COUNTER."""
    return str(trained.card["model_id"])


def write(trained: Trained, folder: Path) -> Path:
    """Writes bundle, card and verdict; the bundle last and whole, so that half a training leaves none."""
    path = folder / f"{order_id(trained)}{SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".html").write_bytes(card.as_html(trained.card, trained.plots))
        path.with_suffix(".card.json").write_bytes(card.as_json(trained.card))
        verdict = json.dumps(trained.verdict.as_json(), indent=2, sort_keys=True) + "\n"
        path.with_suffix(".verdict.json").write_text(verdict, encoding="utf-8")
        part = path.with_suffix(".part")
        part.write_bytes(trained.body)
        os.replace(part, path)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or folder} cannot be written: {error.strerror}; correct MODELS_DIR"
        ) from None
    return path


def _check(options: argparse.Namespace) -> None:
    kind, *rest = options.source
    if kind not in ("simulated", "db", "folder") or len(rest) != (kind == "folder"):
        raise ConfigError(f"--source {' '.join(options.source)}: it is simulated, db, or folder DIR")
    if not _NAME.fullmatch(options.name):
        raise ConfigError(f"--name {options.name!r} is no name: small letters, digits and _, a letter first")
    if options.packs is not None and not 0 <= options.packs <= 100_000:
        raise ConfigError(f"--packs {options.packs} is not a number from 0 to 100000")
    if options.seed < 0:
        raise ConfigError(f"--seed {options.seed} is below 0")
    unknown = set(options.chemistry.split(",")) - set(CHEMISTRIES)
    if unknown:
        raise ConfigError(f"--chemistry {options.chemistry}: it is a list of {' '.join(CHEMISTRIES)}")


def _read(options: argparse.Namespace, config: Config) -> tuple[dataset.Dataset, tuple[str, ...], str]:
    """(rows, chemistries, licence)."""
    kind, *rest = options.source
    asked = tuple(sorted(options.chemistry.split(",")))
    if kind == "simulated":
        packs = dataset.PACKS if options.packs is None else options.packs
        if not packs:
            raise ConfigError("--packs 0 leaves nothing to learn from")
        return dataset.simulated(packs, options.seed), ("nmc",), "MIT (simulated)"
    parts: list[dataset.Dataset] = []
    chemistry: tuple[str, ...] = ()
    if kind == "folder":
        parts = [dataset.from_folder(Path(rest[0]))]
    else:
        stored, chemistry = from_database(config)
        parts = [stored] if stored is not None else []
    if options.packs:
        parts.append(dataset.simulated(options.packs, options.seed))
        chemistry = tuple(sorted({*chemistry, "nmc"}))
    if not parts:
        raise ConfigError("the database holds no sessions yet; there is nothing to learn from")
    found = dataset.joined(parts)
    return found, chemistry or asked, "the operator's own"


def _tell(trained: Trained, path: Path) -> None:
    data, judged = trained.card["data"], trained.card["judged"]
    print(
        f"learned from {data['packs_learned']} packs, judged on {data['packs_frozen']}; "
        f"{data['packs_unlabelled']} packs have no known end and were left out"
    )
    print(
        f"R2 {judged['r2']:.3f}, mean error {judged['mae']:.0f} cycles, 90 % interval holds "
        f"{100 * judged['coverage']:.1f} %, end within 100 cycles AUC {judged['auc']:.3f}"
    )
    print(trained.verdict.sentence())
    print(f"{path} ({len(trained.body) // 1000} kB), its card {path.with_suffix('.html').name}")


@contextmanager
def _progress() -> Iterator[Any]:
    steps = ("read", *STEPS, "write")
    with tqdm(total=len(steps), file=sys.stderr, disable=not sys.stderr.isatty(), leave=False) as bar:
        yield lambda name: (bar.set_description(name), bar.update())
