"""A real Mosquitto: plain and open on loopback, and, with a certificate, TLS with one password per device.

broker = Broker(folder, port=1883)
broker.prepare(); spawn(broker.command()), then wait for broker.ready()
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

from programs import program
from settings import ROOT

from shared.errors import ConfigError

FOLDER = ROOT / "deploy" / "mosquitto"
HOST = "127.0.0.1"
GET = "apt-get install mosquitto"


@dataclass(frozen=True, slots=True)
class Tls:
    """The listener for other machines: TLS, and only for those in the password file, each on topics of its own."""

    port: int
    cert_file: Path
    key_file: Path
    host: str = ""  # the address to listen on; `` = all


@dataclass(frozen=True, slots=True)
class Broker:
    """One Mosquitto with everything of its own below a folder."""

    folder: Path
    port: int  # on loopback, plain
    tls: Tls | None = None
    ask: bool = False  # whether the loopback listener too wants a user name and password

    @property
    def config_file(self) -> Path:
        return self.folder / "mosquitto.conf"

    @property
    def password_file(self) -> Path:
        """Who may log in, `user:$7$iterations$salt$hash` a line; written by the gateway."""
        return self.folder / "passwords"

    @property
    def acl_file(self) -> Path:
        return self.folder / "acl"

    def prepare(self) -> None:
        """Writes the configuration; the password file is made empty where there is none."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config_file.write_text(self.config(), encoding="utf-8")
        for path, text in ((self.acl_file, (FOLDER / "acl").read_text(encoding="utf-8")), (self.password_file, "")):
            if path == self.acl_file or not path.exists():
                path.touch(mode=0o600)
                path.write_text(text, encoding="utf-8")
        self.acl_file.chmod(0o600)

    def config(self) -> str:
        """Returns mosquitto.conf: what all have in common, then this one's place and listeners."""
        common = (FOLDER / "mosquitto.conf").read_text(encoding="utf-8")
        lines = [common, f"persistence_location {self.folder}/"]
        if os.getuid() == 0:
            lines.append("user root")  # else it becomes `mosquitto`, who may neither save here nor read the passwords
        asked = ["allow_anonymous false", f"password_file {self.password_file}", f"acl_file {self.acl_file}"]
        lines += [f"listener {self.port} {HOST}", *(asked if self.ask else ["allow_anonymous true"])]
        if self.tls is not None:
            lines += [f"listener {self.tls.port} {self.tls.host}".rstrip(), *asked, "tls_version tlsv1.2"]
            lines += [f"certfile {self.tls.cert_file}", f"keyfile {self.tls.key_file}"]
        return "\n".join(lines) + "\n"

    def command(self) -> list[str]:
        """Returns the command; its process is Mosquitto, told by itself when the password file changes (<= 1 s)."""
        found = binary()
        return ["/bin/sh", str(FOLDER / "start"), str(self.password_file), str(found), "-c", str(self.config_file)]

    def ready(self) -> bool:
        """Returns whether the loopback listener answers an MQTT CONNECT now (a refusal is an answer)."""
        return answers(self.port)


def problem() -> str | None:
    """Returns what is missing on this machine and how to get it; None when nothing is."""
    return None if program("mosquitto") else f"MQTT needs Mosquitto ({GET})"


def binary() -> Path:
    """Returns Mosquitto's path; ConfigError when it is not installed."""
    found = program("mosquitto")
    if found is None:
        raise ConfigError(f"MQTT needs Mosquitto ({GET})")
    return found


def answers(port: int, host: str = HOST) -> bool:
    """Returns whether an MQTT server answers there: a CONNECT of version 3.1.1 gets a CONNACK within 3 s."""
    name = b"packtwin-asks"
    body = b"\x00\x04MQTT\x04\x02\x00\x0a" + len(name).to_bytes(2, "big") + name
    try:
        with socket.create_connection((host, port), timeout=3) as link:
            link.sendall(b"\x10" + bytes([len(body)]) + body)
            return link.recv(4)[:1] == b"\x20"
    except OSError:
        return False
