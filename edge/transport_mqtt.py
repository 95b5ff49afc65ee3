"""Batches over MQTT v5: each goes to `up` with QoS 1, and its Receipt comes back with the same correlation data.

That the broker has a message means nothing here: only a Receipt does, so a broker that forgets costs a second sending.
An empty message to `up` asks the gateway for a Receipt of nothing: whether it is there, and what time it is.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Collection
from typing import Any, Final

from edge.mqtt import PORT, TLS_PORT, Broker, Link, Message, Will, refused_publish
from edge.transport import READ_S, Desired, Forbidden, Refused, Unavailable, check_ca, check_token, checked_address
from shared.errors import PacktwinError, WireError
from shared.records import MODES, Receipt
from shared.wire import decode_receipt

_ASK_S: Final = 5.0
_EXPIRY_S: Final = 60
"""A batch that waits longer in the broker has been sent again, or will be: it need not fill the broker's memory."""
_JSON: Final = "application/json"
_LONGEST_RETRY_S: Final = 3600.0


class MqttTransport:
    """One broker, one device. It connects when it is needed; who calls again decides when to try again.

    announce: the broker tells on `status` whether this device is there; a second connection of the device must not.
    """

    def __init__(
        self,
        url: str,
        device: str,
        *,
        token: str = "",
        plaintext_hosts: Collection[str] = (),
        ca_file: str | None = None,
        announce: bool = True,
        answer_s: float = READ_S,
    ) -> None:
        address = checked_address(url, "mqtt", plaintext_hosts)
        check_token(address, token)
        check_ca(ca_file)
        tls = address.scheme == "mqtts"
        self._broker = Broker(
            host=(address.host or "").strip("[]"),
            port=address.port or (TLS_PORT if tls else PORT),
            tls=tls,
            ca_file=ca_file,
            user=device if token else "",
            password=token,
            table="uplink.",
        )
        self._up, self._receipts, self._wishes = (
            f"packtwin/v1/{device}/{name}" for name in ("up", "receipt", "desired")
        )
        self._will = Will(f"packtwin/v1/{device}/status", b'{"state":"online"}', b'{"state":"offline"}')
        self._announce = announce
        self._client_id = f"packtwin-{device}" + ("" if announce else f"-{os.urandom(4).hex()}")
        self._answer_s = answer_s
        self._link: Link | None = None
        self._opening = threading.Lock()
        self._numbers = itertools.count(int.from_bytes(os.urandom(7)))
        self._answers: dict[bytes, Message] = {}
        self._waited: set[bytes] = set()
        self._heard = False  # whether the gateway has answered anything since it was asked what it desires
        self._doubt = False  # whether the last batch got no answer: then a small question goes first
        self._told: Desired | None = None

    def send(self, body: bytes) -> Receipt:
        """Sends an encoded Batch and waits for its Receipt. Raises Unavailable, Forbidden or Refused."""
        if self._doubt:
            self._ask(b"", _ASK_S)
        self._doubt = True
        return self._ask(body, self._answer_s)

    def desired(self, device: str) -> Desired:
        """What the cloud would like of the device, as the broker told it; asks the gateway where it was silent."""
        t_ns = None
        if not self._heard:
            t_ns = self._ask(b"", _ASK_S).t_ns
        self._heard = False
        told = self._told
        return Desired(told.mode if told else None, told.bundle if told else None, t_ns, 0, asked=t_ns is not None)

    def told(self) -> Desired | None:
        """What the cloud has said of that by itself, last."""
        return self._told

    def close(self) -> None:
        """Says goodbye to the broker."""
        with self._opening:
            if self._link is not None:
                self._link.close()

    def _ask(self, payload: bytes, timeout_s: float) -> Receipt:
        link = self._opened()
        if len(payload) > link.max_payload_bytes:
            raise Refused("too_large", f"a batch of {len(payload)} bytes is more than the broker takes")
        correlation = (next(self._numbers) % 2**64).to_bytes(8)
        self._waited.add(correlation)
        number = None
        try:
            number = link.publish(self._up, payload, correlation=correlation, expiry_s=_EXPIRY_S)
            self._wait(link, correlation, number, timeout_s)
            answer = self._answers.get(correlation)
            if answer is not None:
                self._doubt = False
                return _receipt(answer)
            raise self._silence(link, link.outcome(number), timeout_s)
        finally:
            self._waited.discard(correlation)
            self._answers.pop(correlation, None)
            if number is not None:
                link.forget(number)

    def _wait(self, link: Link, correlation: bytes, number: int, timeout_s: float) -> None:
        """Until there is an answer, or none will come."""

        def done() -> bool:
            code = link.outcome(number)
            return correlation in self._answers or (code is not None and refused_publish(code) is not None)

        link.wait(done, timeout_s)

    def _silence(self, link: Link, code: int | None, timeout_s: float) -> PacktwinError:
        """Why no answer came."""
        refusal = None if code is None else refused_publish(code)
        if refusal is not None:
            return refusal
        if link.ended is not None:
            return link.ended
        if code is None:
            silent = Unavailable(f"the broker has not answered for {timeout_s:g} s")
            link.end(silent)
            return silent
        return Unavailable(f"the broker works, but no receipt came within {timeout_s:g} s: does the gateway run?")

    def _opened(self) -> Link:
        with self._opening:
            if self._link is not None and self._link.ended is None:
                return self._link
            if self._link is not None:
                self._link.close()
            will = self._will if self._announce else None
            link = Link(self._broker, self._client_id, will=will, on_message=self._message)
            link.open(self._receipts, self._wishes)
            self._link = link
            return link

    def _message(self, message: Message) -> None:
        """On the connection's thread."""
        if message.topic == self._wishes:
            self._told = _desired(message.payload) or self._told
        elif message.topic == self._receipts:
            self._heard = True
            if message.correlation in self._waited:  # else it is too late, or for another connection of this device
                self._answers[message.correlation] = message


def _receipt(answer: Message) -> Receipt:
    """The Receipt in an answer; raises what it says instead."""
    if answer.content_type == _JSON:
        raise _failure(_object(answer.payload))
    try:
        return decode_receipt(answer.payload)
    except WireError as error:
        raise Unavailable(f"the answer to a batch is no Receipt ({error})") from None


def _failure(told: dict[str, Any]) -> PacktwinError:
    """What the gateway's refusal means, as the same refusal over HTTP would."""
    said, reason, retry_s = str(told.get("error", ""))[:200], told.get("reason"), told.get("retry_after_s")
    detail = f"the cloud answered: {said}"
    if reason == "not_yours":
        return Forbidden(detail)
    if reason == "unknown_schema":  # a newer cloud will take these records
        return Unavailable(f"{detail} Bring the cloud up to this agent's version.")
    if reason in ("malformed", "too_large"):
        return Refused(reason, detail)
    wait_s = min(float(retry_s), _LONGEST_RETRY_S) if isinstance(retry_s, int | float) and retry_s > 0 else None
    return Unavailable(detail, wait_s)


def _desired(payload: bytes) -> Desired | None:
    told = _object(payload)
    mode, bundle = told.get("mode"), told.get("bundle")
    if not told:
        return None
    return Desired(
        mode if isinstance(mode, str) and mode in MODES else None, bundle if isinstance(bundle, str) else None, None, 0
    )


def _object(payload: bytes) -> dict[str, Any]:
    try:
        told = json.loads(payload)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
