"""edge.toml: what is right becomes frozen values, what is wrong one sentence with file, key and fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edge.__main__ import main
from edge.config import load_config
from edge.config_sources import SerialConfig
from shared.errors import ConfigError

SOURCE = '[[source]]\npack_id = "A"\nchannel = "can/A"\nmapping = "mapping.toml"\n'
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> Path:
        path = tmp_path / "edge.toml"
        path.write_text(text)
        return path

    return written


def test_a_small_file_gets_the_documented_defaults(write: Write, tmp_path: Path) -> None:
    config = load_config(write(f'device = "box-1"\n{SOURCE}'), {})
    assert (config.clock, config.sample_s, config.uplink.mode) == ("trusted", 1.0, "normal")
    assert (config.page.port, config.metrics.port, config.page.host) == (5002, 9100, "127.0.0.1")
    assert (config.outbox.cold_dir, config.outbox.max_bytes) == (tmp_path / "data", 512 << 20)
    (source,) = config.sources
    assert source.channel == str(tmp_path / "can/A")  # paths count from the file's own folder
    assert source.listen_only and source.mapping_path.name == "mapping.toml"


def test_the_shipped_sample_is_a_right_file() -> None:
    from edge.config_sources import SAMPLES

    config = load_config(SAMPLES / "edge.toml", {})
    assert config.sources


def test_the_environment_goes_before_the_file(write: Write) -> None:
    environ = {"TELEMETRY_INTERVAL": "5", "EDGE_PORT": "6002", "METRICS_PORT": "0", "ALLOW_PLAINTEXT_HOSTS": "api, db"}
    config = load_config(write(f'device = "b"\nsample_s = 2\n[page]\nport = 1\n{SOURCE}'), environ)
    assert (config.sample_s, config.page.port, config.metrics.port) == (5.0, 6002, 0)
    assert config.uplink.plaintext_hosts == ("api", "db")


def test_models_are_asked_every_five_seconds_unless_told_otherwise(write: Write) -> None:
    assert load_config(write(f'device = "b"\n{SOURCE}'), {}).prediction_s == 5.0
    assert load_config(write(f'device = "b"\nprediction_s = 60\n{SOURCE}'), {}).prediction_s == 60.0
    environ = {"PREDICTION_INTERVAL": "0.5"}
    assert load_config(write(f'device = "b"\nprediction_s = 60\n{SOURCE}'), environ).prediction_s == 0.5


def test_what_a_model_needs_to_know_of_a_pack_is_found_beside_the_file(write: Write, tmp_path: Path) -> None:
    (tmp_path / "root.json").write_text("{}")
    (tmp_path / "past.jsonl").write_text("")
    path = write(f'device = "b"\ntrust_root = "root.json"\n{SOURCE}past = "past.jsonl"\ncommissioned = 2021-05-31\n')
    config = load_config(path, {})
    assert config.trust_root == tmp_path / "root.json"
    assert config.sources[0].past == tmp_path / "past.jsonl"
    assert config.sources[0].commissioned_t_ns == 1_622_419_200 * 10**9


SERIAL = '[[source]]\npack_id = "A"\ntype = "serial"\nchannel = "bms"\nmapping = "mapping.toml"\n'


def test_a_bms_on_a_serial_port_needs_no_more_than_its_port_and_mapping(write: Write, tmp_path: Path) -> None:
    config = load_config(write(f'device = "b"\n{SERIAL}'), {})
    (source,) = config.sources
    assert (source.interface, source.channel) == ("serial", str(tmp_path / "bms"))
    assert source.serial == SerialConfig(baudrate=None, address=None, poll_s=None, poll=True)
    other = SERIAL.replace('"A"', '"B"')
    both = f'device = "b"\n{SERIAL}address = 1\npoll_s = 2\n{other}address = 2\n'
    assert [source.serial.address for source in load_config(write(both), {}).sources if source.serial] == [1, 2]
    by_serial = SERIAL.replace('"bms"', '"usb:A50285BI"')
    assert load_config(write(f'device = "b"\n{by_serial}'), {}).sources[0].channel == "usb:A50285BI"


DEVICE = 'device = "b"\n'
SERIAL_B = SERIAL.replace('"A"', '"B"')
ON_THAT_PORT = SOURCE.replace("can/A", "bms").replace('"A"', '"B"')
OTHER = SOURCE.replace('pack_id = "A"', 'pack_id = "B"')
WRONG = {
    "one line, no addresses": (DEVICE + SERIAL + SERIAL_B, ["read by A and B", "give each an address"]),
    "one line, two rates": (
        f"{DEVICE}{SERIAL}address = 1\nbaudrate = 9600\n{SERIAL_B}address = 2\n",
        ["a line has one"],
    ),
    "one line, asked and not": (
        f"{DEVICE}{SERIAL}address = 1\n{SERIAL_B}address = 2\npoll = false\n",
        ["set both to false"],
    ),
    "serial and slcan": (
        DEVICE + SERIAL + ON_THAT_PORT,
        ["one reader"],
    ),
    "no such kind": (DEVICE + SERIAL.replace('"serial"', '"seriell"'), ["type", "serial"]),
    "a setting of a bus": (f"{DEVICE}{SERIAL}bitrate = 500000\n", ["bitrate", "is not a setting"]),
    "no root": (f'trust_root = "none.json"\n{DEVICE}{SOURCE}', ["trust_root", '"none.json"', "does not exist"]),
    "no past": (f'{DEVICE}{SOURCE}past = "none.jsonl"\n', ["past", '"none.jsonl"', "does not exist"]),
    "no day": (f'{DEVICE}{SOURCE}commissioned = "2021-05-31"\n', ["commissioned", "2021-05-31", "without quotes"]),
    "interval": (f"prediction_s = 0\n{DEVICE}{SOURCE}", ["prediction_s", "0.1"]),
    "no device": (SOURCE, ["edge.toml", "device", "missing"]),
    "bad id": (f'device = "a b"\n{SOURCE}', ["device", '"a b"', "letters"]),
    "unknown key": (f"{DEVICE}sampel_s = 1\n{SOURCE}", ["sampel_s", "did you mean sample_s"]),
    "unknown key in a table": (f'{DEVICE}[uplink]\nurll = "x"\n{SOURCE}', ["[uplink]", "urll", "did you mean url"]),
    "wrong type": (f'{DEVICE}sample_s = "fast"\n{SOURCE}', ["sample_s", "must be a number"]),
    "true is no number": (f"{DEVICE}sample_s = true\n{SOURCE}", ["sample_s", "must be a number"]),
    "out of range": (f"{DEVICE}sample_s = 0.01\n{SOURCE}", ["sample_s", "between 0.1 and 3600"]),
    "unknown mode": (f'{DEVICE}[uplink]\nmode = "fast"\n{SOURCE}', ["mode", '"fast"', "live, normal, economy"]),
    "a port too high": (f"{DEVICE}[page]\nport = 70000\n{SOURCE}", ["[page]", "port", "65535"]),
    "no sources": (DEVICE, ["no [[source]]"]),
    "two packs with one id": (f"{DEVICE}{SOURCE}{SOURCE}", ['"A"', "two [[source]]"]),
    "one port read twice": (f"{DEVICE}{SOURCE}{OTHER}", ["A and B"]),
    "no such mapping": (DEVICE + SOURCE.replace("mapping.toml", "none.toml"), ["none.toml", "not exist"]),
    "no channel": (f'{DEVICE}[[source]]\npack_id = "A"\nmapping = "mapping.toml"\n', ["channel", "missing"]),
    "no such token file": (f'{DEVICE}[uplink]\ntoken_file = "t"\n{SOURCE}', ["token_file", "cannot be read"]),
    "no certificate of a source": (
        f'{DEVICE}[[source]]\npack_id = "A"\ntype = "mqtt"\nurl = "mqtts://h"\nmapping = "mapping.toml"\n'
        'ca_file = "edge.toml"\n',
        ["[[source]]", "ca_file", "edge.toml", "holds no certificate"],
    ),
    "no certificate of a broker to show": (
        f'{DEVICE}{SOURCE}[readable]\nurl = "mqtts://h"\nca_file = "edge.toml"\n',
        ["readable.ca_file", "holds no certificate"],
    ),
    "no TOML": ("device = \n", ["is not TOML"]),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_one_sentence_that_names_it(
    write: Write, text: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(text)
    with pytest.raises(ConfigError) as raised:
        load_config(path, {})
    for word in words:
        assert word in str(raised.value)
    assert main(["status", "--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said


def test_a_bad_variable_of_the_environment_is_named(write: Write) -> None:
    path = write(f'device = "b"\n{SOURCE}')
    intervals = {"TELEMETRY_INTERVAL": "nan"}, {"PREDICTION_INTERVAL": "0"}
    for environ in ({"EDGE_PORT": "x"}, {"EDGE_PORT": "70000"}, *intervals):
        with pytest.raises(ConfigError, match=next(iter(environ))):
            load_config(path, environ)


def test_a_file_that_is_not_there_is_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--config", str(tmp_path / "none.toml")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_bad_usage_is_one_sentence_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["fly"], ["run", "--nonsense"], ["replay", "x", "--speed", "-1"], ["replay", "x", "-o"]):
        assert main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1
