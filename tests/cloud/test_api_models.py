"""/api/v1/models: what the bundles at hand say of themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from api_server import Api, running_api
from fakes.bundles import make_bundle

from cloud.config import Config, Database


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    (tmp_path / "release" / "targets").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def api(database: Database, folder: Path) -> Iterator[Api]:
    config = Config(database=database, models_dir=folder / "models", release_dir=folder / "release")
    with running_api(config) as running:
        running.until_healthy()
        yield running


def test_models_of_the_release_and_of_the_folder_say_whether_they_are_simulated(api: Api, folder: Path) -> None:
    assert api.client.get("/api/v1/models").json() == {"models": []}
    (folder / "models" / "fake-1.bundle").write_bytes(make_bundle(1, simulated=True))
    signed = folder / "release" / "targets" / f"{'ab' * 32}.fake-2.bundle"
    signed.write_bytes(make_bundle(2, simulated=False, chemistry=("lfp",)))
    found = api.client.get("/api/v1/models").json()["models"]
    assert [(told["model_id"], told["counter"], told["simulated"]) for told in found] == [
        ("fake-2", 2, False),
        ("fake-1", 1, True),
    ]
    one = api.client.get("/api/v1/models/fake-2").json()
    assert one == found[0]
    assert (one["chemistry"], one["size_bytes"]) == (["lfp"], signed.stat().st_size)


def test_what_is_no_bundle_is_not_listed_and_an_unknown_model_is_404(api: Api, folder: Path) -> None:
    (folder / "models" / "bad-1.bundle").write_bytes(b"PK nothing")
    (folder / "models" / "manifest-2.bundle").write_bytes(make_bundle(2, "manifest", defect="manifest"))
    (folder / "models" / "notes.txt").write_text("x")
    (folder / "models" / "gone-3.bundle").symlink_to(folder / "nowhere")
    assert api.client.get("/api/v1/models").json() == {"models": []}
    for name in ("bad-1", "manifest-2", "gone-3", "..%2F..%2Fetc%2Fpasswd", "nope"):
        answer = api.client.get(f"/api/v1/models/{name}")
        assert answer.status_code == 404
        assert "detail" in answer.json()


def test_a_bundle_that_was_replaced_is_read_again(api: Api, folder: Path) -> None:
    path = folder / "models" / "fake-1.bundle"
    path.write_bytes(make_bundle(1, simulated=True))
    assert api.client.get("/api/v1/models/fake-1").json()["simulated"] is True
    path.write_bytes(make_bundle(1, simulated=False, pad_bytes=100))
    assert api.client.get("/api/v1/models/fake-1").json()["simulated"] is False
