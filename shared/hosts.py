"""Which hosts may be spoken to, or listened on, in clear text; both ends of the road hold to it."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection


def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address without port, is this machine and nothing else."""
    name = host.strip("[]").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def plain_is_allowed(host: str, plaintext_hosts: Collection[str]) -> bool:
    """Whether clear text may be used with `host`: with this machine, and with what ALLOW_PLAINTEXT_HOSTS names."""
    return is_loopback(host) or host.strip("[]").lower() in {name.strip("[]").lower() for name in plaintext_hosts}
