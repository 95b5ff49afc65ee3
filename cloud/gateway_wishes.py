"""What each device is to do, kept as a retained message on its topic `desired`; and who may log in at the broker."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from base64 import b64decode
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import psycopg

from cloud import db, devices
from cloud.config import Config, Mqtt
from cloud.db.connect import DatabaseAway
from cloud.db.queries_wishes import Wish, wishes
from shared.errors import ConfigError

log = logging.getLogger(__name__)

Publish = Callable[[str, bytes], bool]
"""Topic and body of a message to be retained -> whether there was a connection for it."""

_LOOK_S: Final = 1.0
_AWAY_S: Final = 4.0
_AT_ONCE: Final = 2000


class Wishes:
    """Knows every device that spoke since the start, and what it was told last. Lives on the event loop."""

    def __init__(self, uplink_mode: str, publish: Publish) -> None:
        self._uplink_mode, self._publish = uplink_mode, publish
        self._fleet: Wish | None = None
        self._own: Mapping[str, Wish] = {}
        self._met: set[str] = set()
        self._told: dict[str, bytes] = {}
        self._untold: deque[str] = deque()

    def meet(self, device: str) -> None:
        """Notes that the device exists; a new one is told what it is to do."""
        if device not in self._met:
            self._met.add(device)
            self._untold.append(device)
            self.tell()

    def watched(self, device: str) -> bool:
        """Whether someone looks at one of its packs, as far as is known."""
        wish = self._own.get(device)
        return wish is not None and wish.watched

    def learn(self, fleet: Wish, own: Mapping[str, Wish]) -> None:
        """Takes in what the database says now."""
        changed = self._met if fleet != self._fleet else {*own, *self._own}
        news = [d for d in changed if d in self._met and (own.get(d, fleet) != self._own.get(d, self._fleet))]
        self._fleet, self._own = fleet, own
        self._untold.extend(news)
        self.tell()

    def tell_all(self) -> None:
        """Tells every device again: the broker may have forgotten it."""
        self._told.clear()
        self._untold = deque(self._met)
        self.tell()

    def tell(self) -> None:
        """Publishes what is not told yet, some at once; to be called again now and then."""
        if self._fleet is None:  # the database has not said anything yet
            return
        for _ in range(min(len(self._untold), _AT_ONCE)):
            device = self._untold.popleft()
            body = self._body(self._own.get(device, self._fleet))
            if self._told.get(device) == body:
                continue
            if not self._publish(f"packtwin/v1/{device}/desired", body):
                self._untold.appendleft(device)
                return
            self._told[device] = body

    def _body(self, wish: Wish) -> bytes:
        """The same as `GET /device/v1/desired`."""
        mode = "live" if wish.watched else wish.mode or self._uplink_mode
        return json.dumps({"mode": mode, "bundle": wish.bundle}).encode()


class Watcher:
    """The thread that asks the database, and keeps Mosquitto's password file equal to the devices' tokens.

    `learned` is called from the thread with what it found.
    """

    def __init__(self, config: Config, learned: Callable[[Wish, dict[str, Wish]], None]) -> None:
        self._config, self._learned = config, learned
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="wishes", daemon=True)
        self._answered_s = -_AWAY_S
        self._problem: str | None = None

    @property
    def database_up(self) -> bool:
        """Whether the database has answered just now."""
        return time.monotonic() - self._answered_s < _AWAY_S

    def start(self) -> None:
        """Starts the thread; it waits for the database as long as it must."""
        self._thread.start()

    def stop(self, timeout_s: float = 3.0) -> None:
        """Lets the running question end."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with db.connect(self._config.database, "packtwin-gateway") as conn:
                    while not self._stop.is_set():
                        self._look(conn)
                        self._stop.wait(_LOOK_S)
            except (DatabaseAway, psycopg.Error) as error:
                self._say(f"wishes and tokens wait for the database: {' '.join(str(error).split())}")
            except ConfigError as error:
                self._say(str(error))
            except Exception:
                log.exception("reading wishes and tokens failed; it starts again")
            self._stop.wait(_LOOK_S)

    def _look(self, conn: db.Connection) -> None:
        self._learned(*wishes(conn))
        self._answered_s = time.monotonic()
        if self._config.mqtt.password_file is not None:
            keep_passwords(self._config.mqtt, self._config.mqtt.password_file, devices.password_lines(conn))
        self._problem = None

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem


def keep_passwords(mqtt: Mqtt, file: Path, device_lines: str) -> bool:
    """Writes Mosquitto's password file anew if it should be another; whether it did. ConfigError if it cannot.

    The gateway's own line stays as it is, where its password is still the right one.
    """
    try:
        before = file.read_text("utf-8") if file.exists() else ""
        wanted = _own_line(mqtt, before) + device_lines
        if wanted == before:
            return False
        new = file.with_name(file.name + ".new")
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o600
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as out:
            out.write(wanted)
        new.replace(file)
    except OSError as error:
        raise ConfigError(f"MQTT_PASSWORD_FILE={file} cannot be kept: {error.strerror}") from error
    log.info("the broker's password file has %d devices now", device_lines.count("\n"))
    return True


def _own_line(mqtt: Mqtt, before: str) -> str:
    if not mqtt.user:
        return ""
    for line in before.splitlines():
        user, _, hashed = line.partition(":")
        if user == mqtt.user and _is_hash_of(hashed, mqtt.password):
            return line + "\n"
    return f"{mqtt.user}:{devices.mqtt_hash(mqtt.password)}\n"


def _is_hash_of(hashed: str, password: str) -> bool:
    try:
        return devices.mqtt_hash(password, b64decode(hashed.split("$")[3])) == hashed
    except (IndexError, ValueError):
        return False
