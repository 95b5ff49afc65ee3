"""`cloud release` and `cloud train` as a person runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fakes.bundles import make_bundle

from cloud import db
from cloud import release as releases
from cloud.__main__ import main
from cloud.config import Config, Database, load
from shared.errors import ConfigError


@pytest.fixture
def here(database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with fake-1 .. fake-3 in models/, the settings in the environment, and a known device car-1."""
    for name in ("HOST", "PORT", "NAME", "USER", "PASSWORD"):
        monkeypatch.setenv(f"DB_{name}", str(getattr(database, name.lower())))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for counter in (1, 2, 3):
        (tmp_path / "models" / f"fake-{counter}.bundle").write_bytes(make_bundle(counter, rul_cycles=100.0 * counter))
    with db.connect(database) as conn:
        conn.execute("INSERT INTO device (device) VALUES ('car-1'), ('car-2')")
        conn.execute(
            "INSERT INTO report (device_key, boot, seq, mono_ns, t_ns, t, model_id, counter, step, reason, numbers) "
            "SELECT device_key, 1, 1, 1, 1764072000000000000, to_timestamp(1764072000), 'fake-1', 1, 'refused', "
            "'golden', '{}' FROM device WHERE device = 'car-2'"
        )
    return tmp_path


def run(*words: str) -> int:
    return main(["release", *words])


def test_publish_list_revert(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert capsys.readouterr().out.startswith("nothing is published yet; `cloud release publish ")
    assert run("publish", "models/fake-1.bundle", "--to", "fleet") == 0
    assert capsys.readouterr().out == "fake-1 is published; fleet is told to run it\n"
    assert run("publish", "models/fake-1.bundle") == 0
    assert capsys.readouterr().out == "fake-1 is published already, and fleet is told to run it\n"
    assert run("publish", "models/fake-2.bundle") == 0
    assert run("publish", "models/fake-3.bundle", "--to", "car-1") == 0
    capsys.readouterr()
    assert run("revert") == 0
    done = capsys.readouterr()
    assert done.out == "fake-4 is published; fleet is told to run it\n"
    assert done.err == "note: fake-4 is the model of fake-1, published again\n"
    assert (here / ".local" / "keys" / "root.pem").exists() and (here / ".local" / "release" / "metadata").is_dir()


def test_the_list_says_what_is_published_and_what_each_device_is_told(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("publish", "models/fake-1.bundle")
    run("publish", "models/fake-3.bundle", "--to", "car-1")
    (next((here / ".local" / "release" / "targets").glob("*.fake-3.bundle"))).write_bytes(b"damaged")
    capsys.readouterr()
    assert run("list") == 0
    models, devices = (part.splitlines() for part in capsys.readouterr().out.split("\n\n"))
    assert [line.split()[0] for line in models] == ["BUNDLE", "fake-3", "fake-1"]
    assert "file damaged" in models[1] and "car-1 since 20" in models[1]
    assert models[2].split()[:3] == ["fake-1", "1", "simulated"] and "fleet since 20" in models[2]
    assert [line.split() for line in devices[1:]] == [
        ["car-1", "fake-3", "device", "-", "-"],
        ["car-2", "fake-1", "fleet", "refused", "fake-1", "(golden)", "2025-11-25", "12:00:00", "UTC"],
    ]


def test_a_revert_with_nothing_before_is_one_sentence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("revert") == 1
    assert "fleet was told to run nothing yet" in said(capsys)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["publish", "none.bundle"], 2, "none.bundle cannot be read: No such file or directory"),
        (["publish", "models"], 2, "models cannot be read: Is a directory"),
        (["publish", "notes.txt"], 2, "notes.txt: the file is no bundle"),
        (["publish", "bad.bundle"], 2, "golden.json has another sha256 than its manifest says"),
        (["publish", "models/fake-1.bundle", "--to", "car-9"], 2, "device car-9 is not known"),
        (["revert", "--to", "car-9"], 2, "device car-9 is not known"),
    ],
)
def test_bad_usage_is_one_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, sentence: str
) -> None:
    (here / "notes.txt").write_text("notes")
    (here / "bad.bundle").write_bytes(make_bundle(9, defect="manifest"))
    assert run(*words) == code
    assert sentence in said(capsys)
    assert not (here / ".local").exists(), "nothing was made"


def test_a_taken_counter_missing_keys_and_open_keys_are_one_sentence(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("publish", "models/fake-1.bundle")
    (here / "other.bundle").write_bytes(make_bundle(1, rul_cycles=7.0))
    capsys.readouterr()
    assert run("publish", "other.bundle") == 1
    assert "published already, with other bytes; give the model a new counter" in said(capsys)
    key = here / ".local" / "keys" / "targets.pem"
    key.chmod(0o604)
    assert run("publish", "models/fake-2.bundle") == 2
    assert said(capsys).endswith(f"run: chmod 600 {key.relative_to(here)}")
    key.unlink()
    assert run("publish", "models/fake-2.bundle") == 2
    assert "the signing key .local/keys/targets.pem is missing" in said(capsys)


def test_a_folder_that_cannot_be_written_and_a_database_that_is_away_are_one_sentence(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELEASE_DIR", "models/fake-1.bundle")
    assert run("publish", "models/fake-2.bundle") == 2
    assert "cannot be written: Not a directory; check RELEASE_DIR" in said(capsys)
    monkeypatch.setenv("DB_PORT", "1")
    for words in (["publish", "models/fake-2.bundle"], ["list"], ["revert"]):
        assert run(*words) == 1
        assert "check DB_* or start it" in said(capsys)


def test_a_database_without_tables_is_named_so(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_NAME", "postgres")
    for words in (["list"], ["publish", "models/fake-1.bundle"], ["revert"]):
        assert run(*words) == 1
        assert "run `python -m cloud migrate`" in said(capsys)


def test_the_folders_are_settings() -> None:
    assert load({}) == Config()
    told = load({"RELEASE_DIR": "/a", "KEYS_DIR": "/b", "MODELS_DIR": "c"})
    assert (str(told.release_dir), str(told.keys_dir), str(told.models_dir)) == ("/a", "/b", "c")


def test_training_without_its_extra_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cloud.training.command", None)
    assert main(["train", "--source", "folder", "somewhere", "--seed", "1"]) == 2
    assert "run: pip install 'packtwin[train]'" in said(capsys)


def test_other_commands_import_nothing_that_training_needs() -> None:
    code = (
        "import sys; from cloud.__main__ import parser; parser(); print('xgboost' in sys.modules, 'tuf' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False False\n"


def test_the_next_counter_counts_what_lies_in_models(here: Path) -> None:
    assert releases.next_counter(Path("models"), Path(".local/release")) == 4
    with pytest.raises(ConfigError):
        releases.next_counter(Path("models/fake-1.bundle"), Path("nowhere"))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr().err.strip()
    assert captured.count("\n") == 0, captured
    return captured
