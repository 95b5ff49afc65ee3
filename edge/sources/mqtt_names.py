"""Which device each + of a pack's mapping stands for, on flash: after a restart it is the same one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from edge.history_file import write
from edge.sources.source import SourceError, plain_reason


class NamesFile:
    """The names of one pack, as JSON: a wanted topic up to its + -> the name. It is made when there is one to keep."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> dict[str, str]:
        """What was saved last. SourceError: it cannot be read, so nobody knows whose messages are this pack's."""
        try:
            told = json.loads(self.path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SourceError(f"{self.path} cannot be read: {plain_reason(error)}") from None
        except ValueError:
            told = None
        if not isinstance(told, dict) or not all(isinstance(name, str) for name in told.values()):
            raise SourceError(
                f"{self.path} does not say which device + stands for: write the name instead of + in the mapping, or "
                "delete the file, and it is the first one that is heard"
            )
        return told

    def save(self, names: Mapping[str, str]) -> None:
        """They are on flash when it returns. SourceError: they are not."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write(self.path, json.dumps(names).encode(), durable=True)
        except OSError as error:
            raise SourceError(
                f"{self.path} cannot be written ({plain_reason(error)}), so + might be another device after a restart: "
                "make room, or write the name instead of + in the mapping"
            ) from None
