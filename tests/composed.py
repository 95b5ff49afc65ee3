"""deploy/compose as Docker would read it: the YAML with the settings of its .env filled in."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from conftest import ROOT

FOLDER = ROOT / "deploy" / "compose"
_REFERENCE = re.compile(r"\$(?:\$|\{(?P<name>[A-Z][A-Z0-9_]*)(?:(?P<how>:\?|:-)(?P<word>[^}]*))?\})")


@dataclass(frozen=True)
class Composed:
    """raw: as written; model: with `settings` filled in."""

    raw: dict[str, Any]
    model: dict[str, Any]
    settings: dict[str, str]

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        return self.model["services"]  # type: ignore[no-any-return]

    def environment(self, service: str) -> dict[str, str]:
        """What the service is told; {} when nothing."""
        return self.services[service].get("environment", {})


def read(folder: Path) -> Composed:
    """The files as they are at a first start; `folder` is for the .env."""
    for name in ("up", ".env.example"):
        shutil.copy(FOLDER / name, folder / name)
    subprocess.run([str(folder / "up"), "--init"], check=True, capture_output=True)
    settings = env_file(folder / ".env")
    raw = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return Composed(raw, filled(raw, settings), settings)


def env_file(path: Path) -> dict[str, str]:
    """NAME=value lines; what follows ` #` is a comment."""
    lines = re.findall(r"^([A-Z][A-Z0-9_]*)=(.*)$", path.read_text(), re.MULTILINE)
    return {name: value.split(" #")[0].strip() for name, value in lines}


def filled(value: Any, settings: dict[str, str]) -> Any:
    """With every ${NAME} replaced; KeyError for a setting that is not there, or empty though it must not be."""
    if isinstance(value, dict):
        return {key: filled(each, settings) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, settings) for each in value]
    return _REFERENCE.sub(lambda found: _word(found, settings), value) if isinstance(value, str) else value


def _word(found: re.Match[str], settings: dict[str, str]) -> str:
    if found["name"] is None:
        return "$"
    if found["how"] == ":-":
        return settings.get(found["name"]) or str(found["word"])
    value = settings[found["name"]]
    if found["how"] == ":?" and not value:
        raise KeyError(found["name"])
    return value


def references(value: Any) -> dict[str, str]:
    """Every setting named in the file, and how: "" plain, ":?" must be there, ":-" has a default."""
    text = (FOLDER / "compose.yaml").read_text() if value is None else value
    found = {}
    for each in _REFERENCE.finditer(text):
        if each["name"] is not None:
            found[each["name"]] = each["how"] or ""
    return found


def mounts(service: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(what, where) of each volume."""
    for volume in service.get("volumes", []):
        what, where, *_ = volume.split(":")
        yield what, where
