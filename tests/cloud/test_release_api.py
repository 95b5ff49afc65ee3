"""The release over HTTP, as devices fetch it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from api_server import Api, json_batch, running_api
from fakes.bundles import make_bundle
from tuf.ngclient import Updater
from waiting import until

from cloud import db, release
from cloud.config import Config, Database

IMAGE = "/device/v1/image"
BODY = make_bundle(1, pad_bytes=300_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
TARGET = f"{IMAGE}/targets/{DIGEST}.fake-1.bundle"


@pytest.fixture
def config(database: Database, tmp_path: Path) -> Config:
    return Config(database=database, release_dir=tmp_path / "release", keys_dir=tmp_path / "keys")


@pytest.fixture
def api(config: Config) -> Iterator[Api]:
    """The API with fake-1 published to the fleet."""
    with db.connect(config.database) as conn:
        release.publish(conn, config, BODY, "fleet", datetime.now(UTC))
    with running_api(config) as running:
        running.until_healthy()
        yield running


def test_python_tuf_fetches_a_bundle_from_its_first_root_on(api: Api, config: Config, tmp_path: Path) -> None:
    root = (config.release_dir / "metadata" / "1.root.json").read_bytes()
    base = f"http://127.0.0.1:{api.port}{IMAGE}"
    (tmp_path / "device").mkdir()
    updater = Updater(
        str(tmp_path / "device"), f"{base}/metadata/", str(tmp_path), f"{base}/targets/", bootstrap=root
    )  # fmt: skip
    target = updater.get_targetinfo("fake-1.bundle")
    assert target is not None and target.custom is not None and target.custom["model_id"] == "fake-1"
    assert Path(updater.download_target(target)).read_bytes() == BODY


def test_versioned_files_may_be_kept_and_the_timestamp_may_not(api: Api) -> None:
    for path in (TARGET, f"{IMAGE}/metadata/1.root.json", f"{IMAGE}/metadata/2.targets.json"):
        answer = api.client.get(path)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
    assert api.client.get(f"{IMAGE}/metadata/timestamp.json").headers["cache-control"] == "no-cache"
    missing = api.client.get(f"{IMAGE}/metadata/2.root.json")
    assert (missing.status_code, missing.headers["cache-control"]) == (404, "no-store"), "it may come any time"


def test_a_part_of_a_bundle_is_sent_for_a_range(api: Api) -> None:
    whole = api.client.get(TARGET)
    assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, BODY, "bytes")
    assert whole.headers["content-length"] == str(len(BODY))
    part = api.client.get(TARGET, headers={"range": "bytes=200000-"})
    assert (part.status_code, part.content) == (206, BODY[200000:])
    assert part.headers["content-range"] == f"bytes 200000-{len(BODY) - 1}/{len(BODY)}"
    assert api.client.get(TARGET, headers={"range": "bytes=10-19"}).content == BODY[10:20]
    beyond = api.client.get(TARGET, headers={"range": f"bytes={len(BODY)}-"})
    assert beyond.status_code == 416
    known = api.client.get(TARGET, headers={"range": "bytes=10-19", "if-range": whole.headers["etag"]})
    assert known.status_code == 206
    other = api.client.get(TARGET, headers={"range": "bytes=10-19", "if-range": '"another"'})
    assert (other.status_code, len(other.content)) == (200, len(BODY))
    head = api.client.head(TARGET)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(BODY)))


@pytest.mark.parametrize(
    "path",
    [
        "metadata/../../keys/root.pem",
        "metadata/%2e%2e/%2e%2e/keys/root.pem",
        "metadata/..%2f..%2fkeys%2froot.pem",
        "targets/%2e%2e%2f%2e%2e%2fkeys%2froot.pem",
        "targets/..%5c..%5ckeys",
        "metadata//etc/passwd",
        "metadata/.lock",
        "metadata/root.pem",
        "metadata/0.root.json",
        "metadata/1.root.json%00",
        "metadata/",
        "targets/",
        "targets/fake-1.bundle",
        f"targets/{'0' * 64}.fake-1.bundle",
        "",
        "x",
    ],
)
def test_nothing_else_can_be_fetched(api: Api, path: str) -> None:
    # httpx tidies dots away, so the path is sent as it stands
    url = httpx.URL(f"http://127.0.0.1:{api.port}").copy_with(raw_path=f"{IMAGE}/{path}".encode())
    answer = api.client.get(url)
    assert answer.status_code == 404, answer.text
    assert answer.headers["content-type"] == "application/json" and answer.json()["detail"].endswith(".")


def test_other_hosts_and_methods_are_refused(api: Api) -> None:
    assert api.client.get(TARGET, headers={"host": "evil.example"}).status_code == 403
    assert api.client.post(TARGET).status_code == 405
    assert api.client.delete(f"{IMAGE}/metadata/timestamp.json").status_code == 405


def test_without_a_release_there_is_nothing_to_fetch_and_nothing_desired(config: Config) -> None:
    with running_api(config) as api:
        for path in (TARGET, f"{IMAGE}/metadata/timestamp.json", f"{IMAGE}/metadata/1.root.json"):
            answer = api.client.get(path)
            assert (answer.status_code, list(answer.json())) == (404, ["detail"])
        assert api.client.get("/device/v1/desired?device=car-1").json() == {"mode": "normal", "bundle": None}
    assert not config.release_dir.exists()


def test_desired_follows_what_is_published(api: Api, config: Config) -> None:
    assert api.client.get("/device/v1/desired").json()["bundle"] == "fake-1"
    assert api.client.get("/device/v1/desired?device=stranger").json()["bundle"] == "fake-1"
    sent = api.client.post("/device/v1/batches", json=json_batch([{"pack_id": "A", "t_ns": None}]))
    assert sent.status_code == 200, sent.text
    with db.connect(config.database) as conn:
        release.publish(conn, config, make_bundle(2), "car-1", datetime.now(UTC))
    assert api.client.get("/device/v1/desired?device=car-1").json() == {"mode": "normal", "bundle": "fake-2"}
    assert api.client.get("/device/v1/desired?device=car-2").json()["bundle"] == "fake-1"
    assert api.client.get(f"{IMAGE}/metadata/3.targets.json").status_code == 200, "while the API runs"


def test_with_the_database_away_a_device_is_not_told_what_is_not_known(config: Config) -> None:
    with running_api(replace(config, database=replace(config.database, port=1))) as api:
        assert api.client.get("/device/v1/desired").json() == {"mode": "normal", "bundle": None}
        assert api.client.get("/device/v1/desired?device=car-1").status_code == 503


def test_what_expired_while_the_api_was_away_is_renewed_at_its_start(config: Config) -> None:
    now = datetime.now(UTC)
    with db.connect(config.database) as conn:
        release.publish(conn, config, BODY, "fleet", now - timedelta(days=30))
    there = release.repository(config)
    before = there.expires()
    assert before is not None and before < now
    with running_api(config):
        until("it is renewed", lambda: (there.expires() or now) > now + timedelta(hours=23))
