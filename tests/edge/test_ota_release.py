"""The edge against the cloud's own repository and API, with the real probe in a child process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from api_server import running_api
from fakes.bundles import DEFECTS, make_bundle
from fakes.cutting_proxy import Cutter, cutting

from cloud.config import Config, Database
from cloud.release import custom_of
from cloud.release_keys import ROLES
from cloud.tuf_repository import Repository
from edge.inference import probe
from edge.ota.fetch import Origin
from edge.ota.state import Told
from edge.ota.updates import Updates
from shared import bundle as bundles
from shared.bundle import HARDWARE, BundleError
from shared.features import schema_id

pytestmark = pytest.mark.slow

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass
class Fleet:
    """One device, one cloud, a line between them."""

    folder: Path
    repository: Repository
    line: Cutter
    now: datetime = NOW
    probe_s: float = 60.0  # how long a model may take here is not what is tested, but where it never ends
    told: list[Told] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.repository.publish("fake-1.bundle", make_bundle(1), {"counter": 1}, NOW)
        self.root = (self.repository.folder / "metadata" / "1.root.json").read_bytes()
        self.updates = self.start()

    def start(self) -> Updates:
        return Updates(
            self.folder / "models",
            root=self.root,
            origin=Origin(url=self.line.url),
            now_t_ns=lambda: int(self.now.timestamp() * 10**9),
            feature_schema=schema_id(),
            hardware=HARDWARE,
            probe=lambda path, bundle: probe(path, bundle, limit_s=self.probe_s),
            report=self.told.append,
            chemistry=["nmc"],
        )

    def publish(self, body: bytes) -> str:
        """Signs a bundle as `cloud release publish` does, but also one that it would not."""
        try:
            manifest = bundles.read(body).manifest
            name, custom = manifest.model_id, custom_of(manifest)
        except BundleError:
            name, custom = "fake-2", {"counter": 2}
        self.repository.publish(f"{name}.bundle", body, custom, self.now)
        return name

    def run(self, desired: str) -> None:
        while not self.updates.step(desired):
            pass

    @property
    def active(self) -> str | None:
        return self.updates.active.model_id if self.updates.active else None

    @property
    def steps(self) -> list[str]:
        return [" ".join(filter(None, (told.model_id, told.step, told.reason))) for told in self.told]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    nowhere = Database(host="127.0.0.1", port=1)
    with ExitStack() as stack:
        config = Config(database=nowhere, release_dir=tmp_path / "release", keys_dir=tmp_path / "keys")
        api = stack.enter_context(running_api(config))
        line = stack.enter_context(cutting(api.port))
        made = Fleet(tmp_path, Repository(config.release_dir, config.keys_dir), line)
        stack.callback(lambda: made.updates.close())  # noqa: PLW0108 - it may be another one then
        yield made


def test_a_published_bundle_runs(fleet: Fleet) -> None:
    fleet.run("fake-1")
    assert fleet.steps == [f"fake-1 {step}" for step in ("seen", "fetched", "verified", "probed", "activated")]
    fleet.run(fleet.publish(make_bundle(2)))
    assert fleet.active == "fake-2"


@pytest.mark.parametrize(("defect", "reason"), DEFECTS.items())
def test_a_signed_bundle_with_a_defect_is_refused_by_its_reason(fleet: Fleet, defect: str, reason: str) -> None:
    fleet.run("fake-1")
    if defect == "timeout":
        fleet.probe_s = 4.0
    desired = fleet.publish(make_bundle(2, defect=defect))
    fleet.run(desired)
    assert fleet.steps[-1] == f"{desired} refused {reason}"
    assert fleet.active == "fake-1"


def test_a_real_api_and_a_line_that_is_cut_every_64_kib(fleet: Fleet) -> None:
    fleet.run("fake-1")
    body = make_bundle(2, pad_bytes=4_000_000)
    desired = fleet.publish(body)
    fleet.line.back_bytes, fleet.line.connections, fleet.line.cut_bytes = 0, 0, 64 << 10
    fleet.run(desired)
    assert fleet.active == desired
    share = fleet.line.back_bytes / len(body)
    print(f"{len(body)} bytes in {fleet.line.connections} connections: {share:.4f} x, heads and metadata included")
    assert share <= 1.05 and fleet.line.connections > len(body) / (64 << 10)


def test_every_key_is_changed_by_signed_rotations(fleet: Fleet) -> None:
    fleet.run("fake-1")
    for counter, role in enumerate(ROLES, start=2):
        fleet.repository.rotate_root(fleet.now, also=[role])
        fleet.run(fleet.publish(make_bundle(counter)))
        assert fleet.active == f"fake-{counter}"
    fleet.updates.close()
    fleet.updates = fleet.start()
    fleet.repository.rotate_root(fleet.now, also=ROLES)
    fleet.run(fleet.publish(make_bundle(9)))
    assert fleet.active == "fake-9", "from the very first root, as it was given to the device"


def test_what_expired_is_waited_for_until_it_is_renewed(fleet: Fleet) -> None:
    fleet.run("fake-1")
    desired = fleet.publish(make_bundle(2))
    fleet.now += timedelta(days=2)
    fleet.run(desired)
    assert fleet.steps[-1] == "fake-2 refused expired" and fleet.active == "fake-1"
    fleet.repository.renew(fleet.now)
    fleet.updates.close()
    fleet.updates = fleet.start()
    fleet.run(desired)
    assert fleet.active == desired
    for _ in range(6):  # a year and a half of renewals
        fleet.now += timedelta(days=80)
        fleet.repository.renew(fleet.now)
    fleet.run(fleet.publish(make_bundle(3)))
    assert fleet.active == "fake-3"


def test_a_model_made_anew_under_a_higher_counter_is_taken_after_a_rollback(fleet: Fleet) -> None:
    """`cloud release revert`: the earlier model comes back as a new one."""
    first = make_bundle(1)
    fleet.run("fake-1")
    fleet.run(fleet.publish(make_bundle(2)))
    fleet.run(fleet.publish(bundles.renumbered(first, 3)))
    assert fleet.active == "fake-3"
