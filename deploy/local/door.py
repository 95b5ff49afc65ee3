"""How what runs on this machine reaches the API: plain on loopback; beyond it with a token, TLS and the CA's file."""

from __future__ import annotations

import http.client
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from settings import ROOT

from cloud.access import API_TOKEN_FILE, api_token, door_of
from cloud.config import Access, Config
from cloud.tls import fingerprint_of
from shared.errors import PacktwinError

ANY_HOST: Mapping[str, str] = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class Door:
    """The API's address here. access: None = nobody is asked who he is. ca_file: None = no TLS, or the system's CAs."""

    url: str
    access: Access | None = None
    ca_file: Path | None = None

    def get(self, path: str) -> bytes | None:
        """Returns what the API answers to a person who has logged in; None unless it is a 200."""
        request = urllib.request.Request(self.url + path)
        if self.access is not None and path != "/health":
            request.add_header("Authorization", f"Bearer {self.token()}")
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        try:
            if self.ca_file is not None:
                context = ssl.create_default_context(cafile=str(self.ca_file))
                handlers.append(urllib.request.HTTPSHandler(context=context))
            with urllib.request.build_opener(*handlers).open(request, timeout=3) as answer:
                body: bytes = answer.read()
                return body if answer.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None

    def token(self) -> str:
        """Returns what logs people in; "" where nobody is asked. Made here when the API has not made it yet."""
        return "" if self.access is None else api_token(self.access)[0]

    def sentences(self) -> list[str]:
        """Returns what a person must know who comes from another machine; [] on loopback."""
        said = []
        if self.access is not None:
            file = self.access.tls_dir / API_TOKEN_FILE
            said.append("log in with API_TOKEN" if self.access.api_token else f"log in with the token in {file}")
        if self.ca_file is not None:
            said.append(f"devices and browsers trust {self.ca_file}, SHA-256 {fingerprint_of(self.ca_file)}")
        return said

    def edge_lines(self, token_file: Path) -> list[str]:
        """Returns what the agent's [uplink] needs beside the address."""
        lines = [f'ca_file = "{self.ca_file}"'] if self.ca_file else []
        return [*lines, f'token_file = "{token_file}"'] if self.access else lines


def of(config: Config) -> Door:
    """Returns the door that the settings make."""
    host = ANY_HOST.get(config.api_host, config.api_host)
    kind = door_of(config)
    own_ca = kind.tls and config.access.cert_file is None
    if kind.tls and not own_ca and config.access.tls_names:
        host = config.access.tls_names[0]  # a given certificate knows nothing of 127.0.0.1
    access = replace(config.access, tls_dir=ROOT / config.access.tls_dir)
    return Door(
        url=f"{'https' if kind.tls else 'http'}://{f'[{host}]' if ':' in host else host}:{config.api_port}",
        access=access if kind.asks else None,
        ca_file=access.tls_dir / "ca.pem" if own_ca else None,
    )


def device_token(file: Path, device: str, told: Mapping[str, str]) -> Path:
    """Returns the file with a device's token, made by `cloud device add` when it is not here. told: with DB_*."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        _device(told, "revoke", device)  # of a file that is gone; an unknown device or one without a token is no harm
        said = _device(told, "add", device, "-o", str(file))
        if not file.exists():
            raise PacktwinError(f"no token for {device}: {said}")
    return file


def _device(told: Mapping[str, str], *words: str) -> str:
    command = [sys.executable, "-m", "cloud", "device", *words]
    done = subprocess.run(command, env=dict(told), cwd=ROOT, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
