"""The settings of `make run`: the environment, then `.env`, then the defaults that `.env.example` lists."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_ASSIGNMENT = re.compile(r"^(?:export\s+)?([A-Za-z_]\w*)=(.*)$")


class Problem(Exception):
    """Something the user can mend; its text is one sentence. `code` is the exit code: 2 usage or setting, 1 work failed."""

    def __init__(self, sentence: str, code: int = 2) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one run of the stack is told. A port of None was left open: its default may move."""

    db_host: str | None  # None = the embedded PostgreSQL
    db_port: int | None
    db_name: str
    db_user: str
    db_password: str | None  # None = the generated one
    api_host: str
    api_port: int
    edge_port: int | None
    metrics_port: int | None
    cars: int
    given: Mapping[str, str]  # what `.env` holds, for the children


def read_env_file(path: Path, known: frozenset[str]) -> dict[str, str]:
    """Returns the assignments of a `.env` file ({} when there is none); an unknown key or a broken line is a Problem."""
    if not path.exists():
        return {}
    found: dict[str, str] = {}
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        parts = _ASSIGNMENT.match(line)
        if parts is None:
            raise Problem(f"{path.name} line {number}: {line!r} is not NAME=value; mend or remove it")
        key, value = parts.groups()
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            raise Problem(f"{path.name} line {number}: unknown setting {key}{f'; did you mean {near[0]}' if near else ''}"
                          "; .env.example lists them all")
        found[key] = _unquoted(value)
    return found


def _unquoted(value: str) -> str:
    value = value.strip()
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return re.split(r"(?:^|\s+)#", value, maxsplit=1)[0]


def known_settings(example: Path = ROOT / ".env.example") -> frozenset[str]:
    """Returns the names of all settings; `.env.example` is the one list of them."""
    return frozenset(re.findall(r"^#?([A-Z][A-Z0-9_]*)=", example.read_text(encoding="utf-8"), re.MULTILINE))


def read_settings(environment: Mapping[str, str], env_file: Path = ROOT / ".env") -> Settings:
    """Returns the settings; an empty variable counts as not set. Problem: a value that cannot be meant, with its name."""
    given = read_env_file(env_file, known_settings())
    merged = {**given, **environment}

    def text(name: str) -> str | None:
        return merged.get(name) or None

    def number(name: str, low: int, high: int) -> int | None:
        value = text(name)
        if value is None:
            return None
        if not re.fullmatch(r"\d{1,9}", value) or not low <= int(value) <= high:
            raise Problem(f"{name}={value} is not a whole number from {low} to {high}; mend it in the environment or .env")
        return int(value)

    def port(name: str) -> int | None:
        return number(name, 1, 65535)

    return Settings(
        db_host=text("DB_HOST"),
        db_port=port("DB_PORT"),
        db_name=text("DB_NAME") or "twin_data",
        db_user=text("DB_USER") or "twin",
        db_password=text("DB_PASSWORD"),
        api_host=text("API_HOST") or "127.0.0.1",
        api_port=port("API_PORT") or 5001,
        edge_port=port("EDGE_PORT"),
        metrics_port=port("METRICS_PORT"),
        cars=number("CARS", 1, 99) or 3,
        given=given,
    )
