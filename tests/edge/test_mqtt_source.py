"""Packs on a real broker: what comes while nobody listens, what is acknowledged when, what a broker that goes costs."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from broker import TestBroker, missing_part, running_broker
from conftest import missing
from free_ports import free_port
from waiting import until

from cloud.tls import Authority
from edge import mqtt
from edge.assemble import readable
from edge.capture.exported import state_beside
from edge.capture.recorder import Recorder
from edge.capture.replay import capture_samples
from edge.config import RecorderConfig, load_config
from edge.decode_messages import Heard, MessageDecoder
from edge.lane import INTAKE, Lane
from edge.lanes import build_lanes
from edge.mqtt import Broker, Link, Message
from edge.sources.mqtt import MqttIntake
from edge.sources.mqtt_names import NamesFile
from edge.sources.source import SourceError
from shared.errors import ConfigError

S = 1_000_000_000
MAPPING = """[mqtt]
topic = "gate/state"
[fields]
pack_v = { from = "v", resolution = 0.01 }
current_a = { from = "i", resolution = 1.0 }
soc_bms = { from = "gate/soc", unit = "%" }
"""


@pytest.fixture
def broker() -> Iterator[TestBroker]:
    if what := missing_part():
        missing(what)
    with running_broker() as running:
        yield running


class Agent:
    """As much of the agent as follows one lane: `hear` reads, `measure` takes a Sample and stores it or does not."""

    def __init__(
        self, folder: Path, broker: TestBroker, more: str = "", *, mapping: str = MAPPING, url: str | None = None
    ) -> None:
        (folder / "m.toml").write_text(mapping)
        (folder / "edge.toml").write_text(
            'device = "box"\n[[source]]\npack_id = "P"\ntype = "mqtt"\nmapping = "m.toml"\n'
            f'url = "{url or broker.url}"\n{more}'
        )
        config = load_config(folder / "edge.toml", {})
        self.lane: Lane = build_lanes(config, lambda: 1_790_000_000 * S)[0]
        assert isinstance(self.lane.intake, MqttIntake)
        self.intake = self.lane.intake
        self.mono_ns = 1000 * S

    def hear(self, count: int) -> None:
        """Reads until so many messages have come."""
        before = self.intake.frames

        def heard() -> bool:
            self.mono_ns += S // 10
            self.lane.tick(self.mono_ns)
            return self.intake.frames + len(self.intake._waiting) - before >= count

        until(f"{count} messages", heard)

    def measure(self, *, is_stored: bool = True) -> dict[str, Any]:
        self.mono_ns += S
        sample = self.lane.sample(self.mono_ns, None)
        self.intake.settle(is_stored=is_stored)
        return dict(readable(sample)) if sample is not None else {}

    def cut(self) -> None:
        """The connection breaks, as it does when the process is killed: nothing more was said."""
        link = self.intake._link
        assert link is not None
        client = link._client.socket()
        assert isinstance(client, socket.socket)
        client.shutdown(socket.SHUT_RDWR)
        until("the connection has ended", lambda: link.ended)

    def acknowledged(self) -> None:
        """Returns when what was acknowledged is out."""
        link = self.intake._link
        assert link is not None
        until("the acknowledgements are out", lambda: not link._client.want_write())


class Gateway:
    """Publishes with QoS 1, and returns when the broker has it."""

    def __init__(self, broker: TestBroker) -> None:
        self.link = Link(
            Broker(host="127.0.0.1", port=broker.port, tls=False), "gate", will=None, on_message=lambda _: None
        )
        self.link.open()

    def say(self, topic: str, said: Any, *, qos: int = 1, retain: bool = False) -> None:
        payload = said if isinstance(said, bytes) else json.dumps(said).encode()
        number = self.link.publish(topic, payload, qos=qos, retain=retain)
        if qos:
            until("the broker has it", lambda: self.link.outcome(number) is not None)


def test_messages_become_samples(tmp_path: Path, broker: TestBroker) -> None:
    agent, gateway = Agent(tmp_path, broker), Gateway(broker)
    agent.intake.open()
    gateway.say("gate/state", {"v": 52.13, "i": -7})
    gateway.say("gate/state", {"v": 52.2, "i": 3})
    gateway.say("gate/soc", 71)
    agent.hear(3)
    sample = agent.measure()
    assert (sample["pack_v"], sample["current_a_min"], sample["current_a_max"]) == (52.2, -7.0, 3.0)
    assert (sample["soc_bms"], sample["quality"]) == (0.71, {})
    status = agent.lane.status(agent.mono_ns)["source"]
    assert status["frames"] == 3 and status["errors"] == {} and status["interface"] == "mqtt"


def test_what_comes_while_nobody_listens_waits_at_the_broker(tmp_path: Path, broker: TestBroker) -> None:
    first, gateway = Agent(tmp_path, broker), Gateway(broker)
    first.intake.open()
    first.cut()
    for n in range(50):
        gateway.say("gate/state", {"v": 50.0, "i": n})
    second = Agent(tmp_path, broker)
    second.intake.open()
    second.hear(50)
    sample = second.measure()
    assert (sample["current_a_min"], sample["current_a_max"]) == (0.0, 49.0)


def test_nothing_is_acknowledged_before_it_is_stored(tmp_path: Path, broker: TestBroker) -> None:
    """Killed with a Sample taken and not stored: the same messages come again; stored: they do not."""
    gateway = Gateway(broker)
    for is_stored, comes_again in ((False, 3), (True, 0)):
        agent = Agent(tmp_path, broker)
        agent.intake.open()
        for n in range(3):
            gateway.say("gate/state", {"v": 50.0, "i": 10 + n})
        agent.hear(3)
        if is_stored:
            agent.measure()
            agent.acknowledged()
        else:
            agent.lane.sample(agent.mono_ns, None)
        agent.cut()
        other = Agent(tmp_path, broker)
        other.intake.open()
        gateway.say("gate/soc", 50)
        other.hear(comes_again + 1)
        assert other.intake.take_in() is not None and other.intake.frames == comes_again + 1
        other.intake.sampled()
        other.intake.settle(is_stored=True)
        other.acknowledged()
        other.intake.close()


def test_what_could_not_be_stored_is_in_the_next_sample_and_acknowledged_with_it(
    tmp_path: Path, broker: TestBroker
) -> None:
    agent, gateway = Agent(tmp_path, broker), Gateway(broker)
    agent.intake.open()
    gateway.say("gate/state", {"v": 50.0, "i": -33})
    agent.hear(1)
    assert agent.measure(is_stored=False)["current_a_min"] == -33.0
    gateway.say("gate/state", {"v": 50.0, "i": 5})
    agent.hear(1)
    sample = agent.measure()
    assert (sample["current_a_min"], sample["current_a_max"]) == (-33.0, 5.0)


def test_what_cannot_be_stored_is_read_once_and_what_is_kept_of_it_does_not_grow(
    tmp_path: Path, broker: TestBroker
) -> None:
    """With a full disk all messages were kept, and decoded again each second: in the end the loop did nothing else."""
    agent, gateway = Agent(tmp_path, broker), Gateway(broker)
    agent.intake.open()
    for n in range(1, 6):
        for qos in (0, 1):
            gateway.say("gate/state", {"v": 50.0 + n, "i": n if qos else -n}, qos=qos)
        agent.hear(2)
        sample = agent.measure(is_stored=False)
        assert (sample["current_a_min"], sample["current_a_max"]) == (-n, n)
        assert agent.intake.frames == 2 * n and not agent.intake._waiting
    assert len(agent.intake._debts._of) == 5, "what has to be acknowledged, no more"
    sample = agent.measure()
    assert (sample["pack_v"], sample["pack_v_min"]) == (55.0, 51.0)
    assert (sample["current_a"], sample["current_a_min"], sample["current_a_max"]) == (5.0, -5.0, 5.0)
    assert agent.measure()["current_a_min"] == 5.0, "once stored it is in no other"
    assert not agent.intake._debts._of


def test_what_came_while_storing_failed_is_newer_than_what_could_not_be_stored(
    tmp_path: Path, broker: TestBroker
) -> None:
    """The older messages were decoded again, after the newer ones."""
    agent, gateway = Agent(tmp_path, broker), Gateway(broker)
    agent.intake.open()
    gateway.say("gate/state", {"v": 50.0, "i": 1})
    agent.hear(1)
    agent.lane.sample(agent.mono_ns, None)  # being stored ...
    gateway.say("gate/state", {"v": 50.0, "i": 3})
    agent.hear(1)
    agent.lane._snapshot()  # takes in what waits
    agent.intake.settle(is_stored=False)  # ... in vain
    sample = agent.measure()
    assert (sample["current_a"], sample["current_a_min"], sample["current_a_max"]) == (3.0, 1.0, 3.0)


def test_a_counter_that_could_not_be_stored_does_not_pass_for_one_that_moves(
    tmp_path: Path, broker: TestBroker
) -> None:
    agent, gateway = Agent(tmp_path, broker, mapping=f'counter = "n"\n{MAPPING}'), Gateway(broker)
    agent.intake.open()
    for n in (1, 2):
        gateway.say("gate/state", {"v": 50.0, "i": 1, "n": n})
    agent.hear(2)
    agent.measure(is_stored=False)
    again = agent.intake.take_in()
    assert again is not None and not again.heard and not again.newest
    assert again.spans == {"pack_v": (50.0, 50.0), "current_a": (1.0, 1.0)}


def test_over_a_new_connection_of_the_same_process_nothing_is_read_twice(tmp_path: Path, broker: TestBroker) -> None:
    """The broker sends again what was not acknowledged over the old connection, stored or not."""
    agent, gateway = Agent(tmp_path, broker), Gateway(broker)
    agent.intake.open()
    gateway.say("gate/state", {"v": 50.0, "i": -33})
    agent.hear(1)
    agent.lane.sample(agent.mono_ns, None)  # being stored while the connection goes
    agent.cut()
    with pytest.raises(SourceError, match="broker"):
        agent.lane.tick(agent.mono_ns)
    agent.intake.close()
    agent.intake.settle(is_stored=True)
    agent.intake.open()
    gateway.say("gate/state", {"v": 51.0, "i": 4})
    agent.hear(1)
    sample = agent.measure()
    assert (sample["current_a_min"], agent.intake.frames) == (4.0, 2)


def test_what_only_looks_like_a_stored_message_is_read(tmp_path: Path, broker: TestBroker) -> None:
    """It was acknowledged unread: of its session nothing was left, only that a message of this text had been stored."""
    agent, gateway = Agent(tmp_path, broker), Gateway(broker)
    agent.intake.open()
    gateway.say("gate/state", {"v": 50.0, "i": 5})
    agent.hear(1)
    agent.lane.sample(agent.mono_ns, None)
    broker.kill()  # and with it the session
    until("the connection has ended", lambda: agent.intake._link and agent.intake._link.ended)
    agent.intake.close()
    agent.intake.settle(is_stored=True)
    with pytest.raises(SourceError):
        agent.intake.open()
    agent.intake.close()
    broker.start()
    agent.intake.open()
    gateway = Gateway(broker)
    gateway.say("gate/state", {"v": 50.0, "i": 5})
    until("it is here", lambda: agent.intake._inbox)
    agent.cut()  # before it is read
    agent.intake.close()
    agent.intake.open()
    agent.hear(1)
    assert agent.measure()["current_a"] == 5.0 and agent.intake.frames == 2


def test_a_gateway_with_a_topic_for_each_of_500_values_is_heard_in_one_go(tmp_path: Path, broker: TestBroker) -> None:
    """Mosquitto lets 20 messages be unacknowledged at a time, but for those who say that they can take more."""
    lines = "\n".join(f'"extra.x{n}" = {{ from = "gate/x/{n}" }}' for n in range(500))
    mapping = f"[mqtt]\n[fields]\n{lines}\n"
    agent, gateway = Agent(tmp_path, broker, mapping=mapping), Gateway(broker)
    agent.intake.open()
    for n in range(500):
        gateway.link.publish(f"gate/x/{n}", str(n).encode(), qos=1)
    agent.hear(500)
    sample = agent.measure()
    assert sample["extra"] == {f"x{n}": float(n) for n in range(500)}
    assert agent.intake.drops == 0


def test_retained_and_unmapped_and_bad_messages_are_counted_and_do_not_come_again(
    tmp_path: Path, broker: TestBroker
) -> None:
    gateway = Gateway(broker)
    gateway.say("gate/state", {"v": 1.0, "i": 1}, retain=True)
    agent = Agent(tmp_path, broker)
    agent.intake.open()
    gateway.say("gate/state", b'{"v": 52.1, "i"')
    agent.hear(2)
    sample = agent.measure()
    assert sample["pack_v"] is None and sample["quality"]["pack_v"] == "invalid"
    assert agent.lane.status(agent.mono_ns)["source"]["errors"] == {"kept": 1, "json": 1}
    agent.acknowledged()
    agent.cut()
    other = Agent(tmp_path, broker)
    other.intake.open()
    gateway.say("gate/soc", 50)
    other.hear(2)  # what is retained is told to whoever subscribes
    assert other.measure()["pack_v"] is None


def test_a_broker_that_is_away_or_goes_is_told_and_comes_back(tmp_path: Path, broker: TestBroker) -> None:
    agent = Agent(tmp_path, broker)
    broker.kill()
    with pytest.raises(SourceError, match=rf"^the broker at 127\.0\.0\.1:{broker.port} cannot be reached: [A-Z][a-z]+"):
        agent.intake.open()
    agent.intake.close()
    broker.start()
    agent.intake.open()
    gateway = Gateway(broker)
    gateway.say("gate/soc", 40)
    agent.hear(1)
    broker.kill()

    def is_told() -> bool:
        try:
            agent.lane.tick(agent.mono_ns)
        except SourceError:
            return True
        return False

    until("the broker's end is told", is_told)
    agent.intake.close()
    broker.start()
    agent.intake.open()
    Gateway(broker).say("gate/soc", 41)
    agent.hear(1)
    assert agent.measure()["soc_bms"] == 0.41


def test_nothing_is_ever_published(tmp_path: Path, broker: TestBroker) -> None:
    heard: list[Message] = []
    spy = Link(Broker(host="127.0.0.1", port=broker.port, tls=False), "spy", will=None, on_message=heard.append)
    spy.open("#")
    agent, gateway = Agent(tmp_path, broker), Gateway(broker)
    agent.intake.open()
    gateway.say("gate/soc", 40)
    agent.hear(1)
    agent.measure()
    agent.intake.close()
    gateway.say("gate/end", 0)
    until("the spy has caught up", lambda: any(message.topic == "gate/end" for message in heard))
    assert {message.topic for message in heard} == {"gate/soc", "gate/end"}


def test_a_captured_window_replays_to_the_very_same_samples(tmp_path: Path, broker: TestBroker) -> None:
    dated = MAPPING.replace("[fields]", 'time = "t"\n[fields]').replace("gate/soc", "+/soc")
    agent, gateway = Agent(tmp_path, broker, mapping=dated), Gateway(broker)
    recorder = Recorder(
        RecorderConfig(), tmp_path / "cold", None,
        now=lambda: agent.mono_ns, offset_ns=lambda: 1_790_000_000 * S, dating_ns=lambda: None,
    )  # fmt: skip
    agent.lane.record(recorder, "box")
    agent.intake.open()
    given = []
    for n in range(30):
        utc_s = 1_790_000_000 + agent.mono_ns / S
        gateway.say("gate/state", {"v": 50.0 + n / 10, "i": n, "t": utc_s - (30 if n % 7 == 3 else 1)})
        gateway.say("gate/soc", b"{" if n % 5 == 4 else 50 + n)
        gateway.say("other/soc", 5)
        agent.hear(3)
        given.append(agent.measure())
        assert given[-1]["soc_bms"] != 0.05
        recorder.step()
    recorder.trigger("P", None)
    agent.mono_ns += 40 * S
    recorder.step()
    (meta,) = recorder.store.all()
    log = tmp_path / "c.log"
    for name in ("log", "state", "serial"):
        data = b"".join(recorder.store.text(meta, name)) if name in meta.files else b""
        log.with_name({"log": "c.log", "state": "c.state.json", "serial": "c.serial.jsonl"}[name]).write_bytes(data)
    state = state_beside(log)
    assert state is not None
    replayed = [dict(readable(one)) for one in capture_samples(log, state, agent.lane.mapping, "P")]
    assert len(replayed) >= 20 and replayed == given[-len(replayed) :]


def test_a_capture_that_begins_with_another_device_knows_which_is_the_packs(tmp_path: Path, broker: TestBroker) -> None:
    agent, gateway = Agent(tmp_path, broker, mapping=MAPPING.replace("gate/soc", "+/soc")), Gateway(broker)
    agent.intake.open()
    gateway.say("gate/soc", 50)
    agent.hear(1)
    agent.measure()
    known = json.loads(json.dumps(agent.lane._snapshot()))
    again = MessageDecoder(agent.lane.mapping)
    again.names.restore(known[INTAKE])
    assert again.decode([Heard("other/soc", b"5", 0)]) is None and again.decode([Heard("gate/soc", b"5", 0)])
    gateway.say("other/soc", 5)
    agent.hear(1)
    agent.measure()
    source = agent.lane.status(agent.mono_ns)["source"]
    assert source["errors"] == {"address": 1}
    assert len(source["notes"]) == 1 and "gate" in source["notes"][0] and "other" in source["notes"][0]


ANY = MAPPING.replace("gate/soc", "+/soc").replace("gate/state", "+/state")


def test_a_plus_is_the_same_device_after_a_kill(tmp_path: Path, broker: TestBroker) -> None:
    """At each start it was whichever was heard first: the history of a pack went on with another battery's."""
    gateway = Gateway(broker)
    first = Agent(tmp_path, broker, mapping=ANY)
    first.intake.open()
    gateway.say("gate/soc", 50)
    gateway.say("boat/soc", 5)
    first.hear(2)
    first.cut()  # before any Sample
    second = Agent(tmp_path, broker, mapping=ANY)
    second.intake.open()
    second.hear(2)
    second.measure()
    second.acknowledged()
    second.cut()
    gateway.say("boat/soc", 6)
    gateway.say("boat/state", {"v": 13.0, "i": 1})
    gateway.say("gate/soc", 51)
    third = Agent(tmp_path, broker, mapping=ANY)
    third.intake.open()
    third.hear(3)
    sample, source = third.measure(), third.lane.status(third.mono_ns)["source"]
    assert (sample["soc_bms"], sample["pack_v"]) == (0.51, None)
    assert source["errors"] == {"address": 2}
    (note,) = source["notes"]
    assert "gate is taken" in note and "boat" in note and f"delete {tmp_path / 'data' / 'mqtt' / 'P.json'}" in note


def test_nothing_is_read_of_a_device_whose_name_cannot_be_kept(tmp_path: Path, broker: TestBroker) -> None:
    in_the_way = tmp_path / "data" / "mqtt" / "P.json.new"
    in_the_way.mkdir(parents=True)
    agent, gateway = Agent(tmp_path, broker, mapping=ANY), Gateway(broker)
    agent.intake.open()
    gateway.say("gate/soc", 50)
    until("the connection has ended", lambda: agent.intake._link and agent.intake._link.ended)
    with pytest.raises(SourceError, match=r"P\.json cannot be written \(.+\), so \+ might be another device") as error:
        agent.lane.tick(agent.mono_ns)
    assert "\n" not in str(error.value) and agent.intake.take_in() is None
    agent.intake.close()
    in_the_way.rmdir()
    agent.intake.open()
    agent.hear(1)
    assert agent.measure()["soc_bms"] == 0.5
    assert json.loads((tmp_path / "data/mqtt/P.json").read_text()) == {"+": "gate"}


@pytest.mark.parametrize("content", ["", "[]", '{"+": 3}', "\ufffd"])
def test_a_file_of_names_that_cannot_be_read_is_told(tmp_path: Path, content: str) -> None:
    names = NamesFile(tmp_path / "mqtt" / "P.json")
    assert names.load() == {}
    names.save({"a/+": "b"})
    assert names.load() == {"a/+": "b"} and [file.name for file in names.path.parent.iterdir()] == ["P.json"]
    names.path.write_text(content)
    with pytest.raises(SourceError, match="write the name instead of \\+ in the mapping, or delete the file"):
        names.load()


def test_a_broker_that_takes_connections_and_says_nothing_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read "the broker at X: the broker at X does not answer"."""
    if what := missing_part():
        missing(what)
    monkeypatch.setattr(mqtt, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        where = f"127.0.0.1:{mute.getsockname()[1]}"
        with running_broker() as broker:
            agent = Agent(tmp_path, broker, url=f"mqtt://{where}")
            with pytest.raises(SourceError) as error:
                agent.intake.open()
            agent.intake.close()
    assert str(error.value) == f"the broker at {where} does not answer"


def test_tls_and_a_password_as_readable_has_them(tmp_path: Path) -> None:
    if what := missing_part():
        missing(what)
    authority, now = Authority(tmp_path / "ours"), datetime.now(UTC)
    authority.prepare(now)
    pair = authority.pair("mqtt", ["localhost", "127.0.0.1"], now)
    users, port = tmp_path / "users", free_port()
    subprocess.run(["mosquitto_passwd", "-c", "-b", users, "house", "secret"], check=True, timeout=30)
    more = (
        f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {users}\n"
        f"certfile {pair.cert_file}\nkeyfile {pair.key_file}\n"
    )
    with running_broker(more) as broker:
        (tmp_path / "word").write_text("secret\n")
        lines = f'user = "house"\npassword_file = "word"\nca_file = "{authority.ca_file}"\n'
        agent = Agent(tmp_path, broker, lines, url=f"mqtts://localhost:{port}")
        agent.intake.open()
        Gateway(broker).say("gate/soc", 44)
        agent.hear(1)
        assert agent.measure()["soc_bms"] == 0.44
        (tmp_path / "word").write_text("wrong\n")
        with pytest.raises(SourceError, match="check user and password_file of this source"):
            Agent(tmp_path, broker, lines, url=f"mqtts://localhost:{port}").intake.open()


BAD = {
    "clear text beyond this machine": ('url = "mqtt://broker.lan"', "ALLOW_PLAINTEXT_HOSTS"),
    "no broker": ('url = "http://127.0.0.1"', "mqtt"),
    "no url": ("", "url is missing"),
    "a session of a moment": ('url = "mqtt://127.0.0.1"\nsession_s = 1', "session_s"),
    "a setting of another type": ('url = "mqtt://127.0.0.1"\nbitrate = 500000', "bitrate"),
}


def test_two_sources_with_one_client_id_at_a_broker_are_refused(tmp_path: Path) -> None:
    """They threw each other out for ever."""

    def load(urls: tuple[str, str], ids: tuple[str, str]) -> None:
        text = 'device = "box"\n'
        for n, (url, client_id) in enumerate(zip(urls, ids, strict=True)):
            line = f'client_id = "{client_id}"\n' if client_id else ""
            text += f'[[source]]\npack_id = "P{n}"\ntype = "mqtt"\nmapping = "m.toml"\nurl = "{url}"\n{line}'
        (tmp_path / "edge.toml").write_text(text)
        load_config(tmp_path / "edge.toml", {})

    (tmp_path / "m.toml").write_text(MAPPING)
    here, there = "mqtt://127.0.0.1", "mqtt://127.0.0.1:1884"
    with pytest.raises(ConfigError, match=r'client_id "x" at mqtt://127\.0\.0\.1:1883 is used by P0 and P1') as error:
        load((here, "mqtt://127.0.0.1:1883"), ("x", "x"))
    assert "\n" not in str(error.value)
    for urls, ids in (((here, there), ("x", "x")), ((here, here), ("x", "y")), ((here, here), ("", ""))):
        load(urls, ids)


@pytest.mark.parametrize(("lines", "says"), BAD.values(), ids=BAD.keys())
def test_a_source_that_is_wrong_is_told_in_one_sentence(tmp_path: Path, lines: str, says: str) -> None:
    (tmp_path / "m.toml").write_text(MAPPING)
    (tmp_path / "edge.toml").write_text(
        f'device = "box"\n[[source]]\npack_id = "P"\ntype = "mqtt"\nmapping = "m.toml"\n{lines}\n'
    )
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "edge.toml", {})
    assert says in str(error.value) and "\n" not in str(error.value)


def test_source_and_mapping_of_different_kinds_are_told(tmp_path: Path) -> None:
    def built(kind: str, mapping: str) -> str:
        (tmp_path / "m.toml").write_text(mapping)
        (tmp_path / "edge.toml").write_text(f'device = "b"\n[[source]]\npack_id = "P"\nmapping = "m.toml"\n{kind}\n')
        with pytest.raises(ConfigError) as error:
            build_lanes(load_config(tmp_path / "edge.toml", {}))
        return str(error.value)

    jbd = 'protocol = "jbd"\n[fields]\npack_v = { from = "pack_v" }\n'
    assert "[mqtt]" in built('type = "mqtt"\nurl = "mqtt://127.0.0.1"', jbd)
    assert 'type = "mqtt"' in built('interface = "socketcan"\nchannel = "can0"', MAPPING)
    assert "protocol" in built('type = "serial"\nchannel = "/dev/ttyUSB0"', MAPPING)


# --- edge doctor ---


def doctor(folder: Path, capsys: pytest.CaptureFixture[str], seconds: str = "0.3") -> dict[str, tuple[str, str]]:
    """check -> (status, text)."""
    from edge.__main__ import main

    main(["doctor", "--json", "--seconds", seconds, "--config", str(folder / "edge.toml")])
    return {one["check"]: (one["status"], one["text"]) for one in json.loads(capsys.readouterr().out)}


@contextmanager
def publishing_to(gateway: Gateway, *topics: str) -> Iterator[None]:
    """Meanwhile something is published on each again and again."""
    enough = threading.Event()

    def publish() -> None:
        while not enough.wait(0.05):
            for topic in topics:
                gateway.link.publish(topic, b"41")

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


def test_doctor_listens_beside_the_agent_and_takes_nothing_from_its_session(
    tmp_path: Path, broker: TestBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    agent, gateway = Agent(tmp_path, broker), Gateway(broker)
    agent.intake.open()
    agent.cut()
    gateway.say("gate/soc", 41)
    where = f"broker {broker.url}"
    told = doctor(tmp_path, capsys)
    assert told["mapping P"][0] == "ok" and told[where][0] == "fail"
    assert "nothing is published on gate/state, gate/soc" in told[where][1]
    other = Agent(tmp_path, broker)
    other.intake.open()
    other.hear(1)
    assert other.measure()["soc_bms"] == 0.41
    other.intake.close()

    with publishing_to(gateway, "gate/soc"):
        status, text = doctor(tmp_path, capsys, "1")[where]
    assert status == "warn" and "messages in 1 s; nothing on gate/state" in text
    (tmp_path / "m.toml").write_text(MAPPING.replace("gate/soc", "+/soc").replace("gate/state", "+/state"))
    with publishing_to(gateway, "gate/soc", "boat/soc", "gate/state"):
        status, text = doctor(tmp_path, capsys, "1")[where]
    assert status == "warn" and "+ is boat, gate: write the name of this pack" in text
    broker.kill()
    assert doctor(tmp_path, capsys)[where][0] == "fail"
