"""What can be found out about packs on a broker and on Bluetooth: who answers, and what comes. Publishes nothing."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from edge.config_sources import MqttConfig, SourceConfig
from edge.doctor.checks import FAIL, OK, WARN, Check
from edge.mapping_mqtt import fits, names_at
from shared.errors import ConfigError

_SHOWN: Final = 4


def broker_check(source: SourceConfig, topics: Sequence[str], seconds: float) -> Check:
    """Listens for `seconds` to the topics of a mapping, beside the agent and without its session."""
    from edge.mqtt import Broker, Link, Message
    from edge.transport import Forbidden, Unavailable

    mqtt = source.mqtt
    assert mqtt is not None
    name, came, lock = f"broker {source.channel}", Counter[str](), threading.Lock()

    def take(message: Message) -> None:
        with lock:
            came[message.topic] += not message.is_kept

    at = Broker(
        host=mqtt.host,
        port=mqtt.port,
        tls=mqtt.tls,
        ca_file=str(mqtt.ca_file) if mqtt.ca_file else None,
        user=mqtt.user,
        password=mqtt.password,
    )
    link = Link(at, f"{_client_id(mqtt, source)}-doctor", will=None, on_message=take)
    try:
        link.open(*topics)
        time.sleep(seconds)
    except Forbidden:
        return Check(name, FAIL, f"does not let us in, or not to {topics[0]}: check user and password_file")
    except Unavailable as error:
        return Check(name, FAIL, f"{error}: check url, the broker and the network between")
    finally:
        link.close()
    with lock:
        return _heard(name, came, topics, seconds)


def _heard(name: str, came: Counter[str], topics: Sequence[str], seconds: float) -> Check:
    silent = [wanted for wanted in topics if not any(n and fits(topic, wanted) for topic, n in came.items())]
    told = f"{came.total()} messages in {seconds:g} s"
    if len(silent) == len(topics):
        return Check(name, FAIL, f"nothing is published on {_some(topics)}: check the gateway, topics and --seconds")
    if silent:
        return Check(name, WARN, f"{told}; nothing on {_some(silent)}: wait longer with --seconds, or mend the mapping")
    names: dict[str, set[str]] = {}
    for wanted in topics:
        for topic, n in came.items():
            if n and fits(topic, wanted):
                for place, level in names_at(topic, wanted).items():
                    names.setdefault(place, set()).add(level)
    for place, heard in names.items():
        if len(heard) > 1:
            more = f"{told}; {place} is {_some(sorted(heard))}: write the name of this pack instead of + in the mapping"
            return Check(name, WARN, more)
    return Check(name, OK, f"{told}, on all {len(topics)} topics of the mapping")


def _some(topics: Sequence[str]) -> str:
    more = len(topics) - _SHOWN
    return ", ".join(topics[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _client_id(mqtt: MqttConfig, source: SourceConfig) -> str:
    return mqtt.client_id or f"packtwin-{source.pack_id}"


def bluetooth_check(source: SourceConfig) -> Check:
    """Whether Bluetooth can be read here at all; nothing is connected to."""
    from edge.sources.ble import check_available

    name = f"bluetooth {source.channel}"
    try:
        check_available()
    except ConfigError as error:
        return Check(name, FAIL, str(error))
    return Check(name, OK, "aiobmsble is there; whether the BMS is near shows `edge run`")
