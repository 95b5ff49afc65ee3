"""Reading TOML tables strictly: each key with its type; a complaint is one sentence with file, key and fix."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from shared.errors import ConfigError
from shared.fields import ID

_MISSING: Any = object()
_FIRST_YEAR: Final = 1990
_LAST_YEAR: Final = 2100


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. ConfigError if it cannot be read or is no TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: give the path of a file that does") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def nearest(wrong: str, known: Iterable[str], count: int = 3) -> str:
    """`; did you mean a or b?` for a name that is not known, or nothing when none is close."""
    folded = {name.casefold(): name for name in known}
    close = [folded[key] for key in difflib.get_close_matches(wrong.casefold(), folded, n=count, cutoff=0.5)]
    return f"; did you mean {' or '.join(close)}?" if close else ""


class Table:
    """One TOML table being read. Take each key, then call `done`, which refuses what is left over."""

    def __init__(self, data: object, where: str) -> None:
        if not isinstance(data, Mapping):
            raise ConfigError(f"{where} must be a table, not {data!r}")
        self.where = where
        self._data = dict(data)
        self._known: list[str] = []

    def fail(self, key: str, what: str) -> ConfigError:
        """The error that says what is wrong with `key`; raise it."""
        return ConfigError(f"{self.where}: {key} {what}")

    def wrong(self, what: str) -> ConfigError:
        """The error that says what is wrong with the table as a whole; raise it."""
        return ConfigError(f"{self.where} {what}")

    def raw(self, key: str, default: Any = _MISSING) -> Any:
        """The value as TOML has it."""
        self._known.append(key)
        if key in self._data:
            return self._data.pop(key)
        if default is _MISSING:
            raise self.fail(key, "is missing: add it")
        return default

    def text(self, key: str, default: Any = _MISSING) -> str:
        """A string."""
        value = self.raw(key, default)
        if not isinstance(value, str):
            raise self.fail(key, f"= {value!r} must be text in quotes")
        return value

    def flag(self, key: str, default: Any = _MISSING) -> bool:
        """true or false."""
        value = self.raw(key, default)
        if not isinstance(value, bool):
            raise self.fail(key, f"= {value!r} must be true or false")
        return value

    def number(self, key: str, default: Any = _MISSING, *, lo: float, hi: float) -> float:
        """A number within [lo, hi]."""
        value = self.raw(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(key, f"= {value!r} must be a number")
        if not lo <= value <= hi:
            raise self.fail(key, f"= {value} must lie between {lo:g} and {hi:g}")
        return float(value)

    def whole(self, key: str, default: Any = _MISSING, *, lo: int, hi: int) -> int:
        """A whole number within [lo, hi]."""
        value = self.number(key, default, lo=lo, hi=hi)
        if value != int(value):
            raise self.fail(key, f"= {value} must be a whole number")
        return int(value)

    def choice(self, key: str, default: Any = _MISSING, *, among: Collection[str]) -> str:
        """One of a closed list."""
        value = self.text(key, default)
        if value not in among:
            raise self.fail(key, f'= "{value}" must be one of {", ".join(among)}')
        return value

    def id(self, key: str) -> str:
        """An id of a device or a pack."""
        value = self.text(key)
        if not ID.fullmatch(value):
            raise self.fail(key, f'= "{value}" must be 1 to 64 of: letters, digits, . _ - (a letter or digit first)')
        return value

    def file(self, key: str, folder: Path) -> Path | None:
        """A file that must be there, counted from `folder`; None when the key is left out."""
        name = self.text(key, "")
        if name and not (folder / name).is_file():
            raise self.fail(key, f'= "{name}" does not exist: give the path of a file, or leave it out')
        return folder / name if name else None

    def secret(self, key: str, folder: Path) -> str:
        """The content of the file that `key` names, counted from `folder`; "" when the key is left out."""
        name = self.text(key, "")
        if not name:
            return ""
        try:
            return (folder / name).read_text("utf-8").strip()
        except OSError as error:
            raise self.fail(key, f'= "{name}" cannot be read: {error.strerror}') from None
        except UnicodeDecodeError:
            raise self.fail(key, f'= "{name}" is not text') from None

    def day(self, key: str) -> int | None:
        """The UTC ns at which a day begins; None when the key is left out."""
        day = self.raw(key, None)
        if day is None:
            return None
        if type(day) is not date or not _FIRST_YEAR <= day.year <= _LAST_YEAR:
            raise self.fail(key, f"= {day} must be a day such as 2021-05-31, without quotes")
        return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000_000

    def table(self, key: str) -> Table:
        """A table within; empty when it is left out."""
        return Table(self.raw(key, {}), f"{self.where} [{key}]")

    def tables(self, key: str) -> list[Table]:
        """An array of tables (`[[key]]`)."""
        items = self.raw(key, [])
        if not isinstance(items, list):
            raise self.fail(key, f"must be written as [[{key}]]")
        return [Table(item, f"{self.where} [[{key}]] number {n}") for n, item in enumerate(items, 1)]

    def __contains__(self, key: str) -> bool:
        """Whether the key is given (for those that have no default)."""
        self._known.append(key)
        return key in self._data

    def items(self) -> list[tuple[str, Any]]:
        """All keys that are left, as (key, value); none is left afterwards."""
        items = list(self._data.items())
        self._data.clear()
        return items

    def done(self) -> None:
        """ConfigError if a key is left that nobody asked for."""
        for key in self._data:
            hint = nearest(key, self._known) or f"; known here: {', '.join(dict.fromkeys(self._known))}"
            raise self.fail(f'"{key}"', f"is not a setting{hint}")
