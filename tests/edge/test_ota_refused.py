"""Every reason of the closed list, through the agent's own update path over a real server: the old model runs on."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.tuf_repo import TufRepo
from fakes.updates import DAY_NS, T_NS, World, custom_of, plain_bundle, plain_manifest, world

from shared.bundle import Bundle, BundleError
from shared.manifest import REASONS


@pytest.fixture
def w(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("os.fsync", lambda handle: None)  # these tests' flash may forget; test_ota_power's may not
    with world(tmp_path) as made:
        yield made


def alter_target(w: World) -> str:
    name = w.publish(2)
    path = w.repo.stored(f"{name}.bundle")
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(bytes(body))
    return name


def shorten_target(w: World) -> str:
    name = w.publish(2)
    path = w.repo.stored(f"{name}.bundle")
    path.write_bytes(path.read_bytes()[:-1])
    return name


def alter_metadata(w: World) -> str:
    name = w.publish(2)
    w.server.alter = lambda path, body: body.replace(b"rul-2", b"rul-3") if path.endswith("targets.json") else body
    return name


def sign_with_a_wrong_key(w: World) -> str:
    w.repo.signers["targets"] = TufRepo(w.folder / "other", T_NS).signers["targets"]
    return w.publish(2)


def sign_nothing(w: World) -> str:
    return "rul-2"


def disagree_inside(w: World) -> str:
    """Correctly signed, but one file in it is not what its manifest says."""
    manifest = plain_manifest("rul", 2)
    whole = zipfile.ZipFile(io.BytesIO(plain_bundle(manifest)))
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in whole.namelist():
            archive.writestr(file, whole.read(file) + b"!" * (file == "rul_cycles.onnx"))
    w.repo.add("rul-2.bundle", made.getvalue(), custom_of(manifest))
    w.repo.publish()
    return "rul-2"


def be_no_bundle(w: World) -> str:
    w.repo.add("rul-2.bundle", b"no zip", {})
    w.repo.publish()
    return "rul-2"


def name_another_inside(w: World) -> str:
    manifest = plain_manifest("other", 2)
    w.repo.add("rul-2.bundle", plain_bundle(manifest), {})
    w.repo.publish()
    return "rul-2"


def name_another_outside(w: World) -> str:
    manifest = plain_manifest("rul", 2)
    w.repo.add("rul-2.bundle", plain_bundle(manifest), custom_of(manifest) | {"model_id": "rul-3"})
    w.repo.publish()
    return "rul-2"


def go_below(w: World) -> str:
    w.install(5)
    return w.publish(4)


def go_below_inside(w: World) -> str:
    w.install(5)
    manifest = plain_manifest("rul", 4)
    w.repo.add("rul-6.bundle", plain_bundle(manifest), {})
    w.repo.publish()
    return "rul-6"


def repeat_the_counter(w: World) -> str:
    return w.publish(1, "other")


def wait_too_long(w: World) -> str:
    w.t_ns = T_NS + 2 * DAY_NS
    return w.publish(2)


def set_the_clock_forward(w: World) -> str:
    w.t_ns = T_NS + 3652 * DAY_NS
    return w.publish(2)


def set_the_clock_back(w: World) -> str:
    w.t_ns = T_NS - 3652 * DAY_NS
    return w.publish(2)


def set_the_clock_back_a_little(w: World) -> str:
    w.t_ns = T_NS - 3 * DAY_NS
    return w.publish(2)


def sign_too_long_a_length(w: World) -> str:
    manifest = plain_manifest("rul", 2)
    w.repo.add("rul-2.bundle", plain_bundle(manifest), custom_of(manifest), length=5_000_001)
    w.repo.publish()
    return "rul-2"


def send_more_than_signed(w: World) -> str:
    w.server.alter = lambda path, body: body + b"!" if "/rul" in path or ".rul" in path else body
    return w.publish(2)


def swell(w: World) -> str:
    """Small on the wire, huge when inflated."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in ("manifest.json", "golden.json"):
            archive.writestr(file, b" " * 20_000_000)
    w.repo.add("rul-2.bundle", made.getvalue(), {})
    w.repo.publish()
    return "rul-2"


def publish_with(**changes: object) -> Callable[[World], str]:
    return lambda w: w.publish(2, **changes)


def differ_inside(**changes: object) -> Callable[[World], str]:
    """The metadata says that it fits, the manifest does not."""

    def make(w: World) -> str:
        manifest = plain_manifest("rul", 2)
        w.repo.add("rul-2.bundle", plain_bundle(replace(manifest, **changes)), custom_of(manifest))
        w.repo.publish()
        return "rul-2"

    return make


def fail_the_probe(reason: str) -> Callable[[World], str]:
    def make(w: World) -> str:
        def probe(path: Path, bundle: Bundle) -> None:
            raise BundleError(reason, "as it was told")

        w.probe = probe
        return w.publish(2)

    return make


REFUSALS = [
    ("target_hash", alter_target),
    ("target_hash", shorten_target),
    ("signature", alter_metadata),
    ("signature", sign_with_a_wrong_key),
    ("signature", sign_nothing),
    ("manifest", disagree_inside),
    ("manifest", be_no_bundle),
    ("manifest", name_another_inside),
    ("manifest", name_another_outside),
    ("counter", go_below),
    ("counter", go_below_inside),
    ("counter", repeat_the_counter),
    ("expired", wait_too_long),
    ("expired", set_the_clock_forward),
    ("clock", set_the_clock_back),
    ("clock", set_the_clock_back_a_little),
    ("feature_schema", publish_with(feature_schema="other")),
    ("feature_schema", differ_inside(feature_schema="other")),
    ("hardware", publish_with(hardware="gpu")),
    ("hardware", differ_inside(hardware="gpu")),
    ("chemistry", publish_with(chemistry=("lfp", "lto"))),
    ("chemistry", differ_inside(chemistry=("lfp", "lto"))),
    ("too_large", sign_too_long_a_length),
    ("too_large", send_more_than_signed),
    ("too_large", swell),
    *((reason, fail_the_probe(reason)) for reason in ("not_finite", "golden", "out_of_range", "timeout", "crash")),
]


def test_every_reason_of_the_closed_list_is_here() -> None:
    assert {reason for reason, _ in REFUSALS} == set(REASONS)


@pytest.mark.parametrize(
    ("reason", "make"), REFUSALS, ids=[f"{reason}-{make.__qualname__.partition('.')[0]}" for reason, make in REFUSALS]
)
def test_it_is_refused_with_its_reason_and_the_old_model_runs_on(
    w: World, reason: str, make: Callable[[World], str]
) -> None:
    w.install(1)
    desired = make(w)
    running, before = w.active, len(w.told)
    w.run(desired, 900)
    assert w.steps[before] == f"{desired} seen"
    assert w.steps[before:].count(f"{desired} refused {reason}") == 1
    assert [step for step in w.steps[before:] if "refused" in step] == [f"{desired} refused {reason}"]
    assert w.active == running
    w.restart()
    w.run(desired, 900)
    assert w.active == running
    refusals = [step for step in w.steps[before:] if "refused" in step]
    assert refusals == [f"{desired} refused {reason}"], "also after a restart it is said once"
    assert w.updates.status()["last"]["step"] == "refused"
    w.server.alter = lambda path, body: body
    w.repo.now_t_ns = w.t_ns = T_NS
    w.probe = lambda path, bundle: None
    if make is sign_with_a_wrong_key:
        return
    w.run(w.publish(9), 60)
    assert w.active == "rul-9", "and a good one is taken afterwards"


@pytest.mark.parametrize(
    "make", [publish_with(hardware="gpu"), publish_with(chemistry=("lfp",)), sign_too_long_a_length, go_below]
)
def test_what_cannot_be_taken_is_not_fetched(w: World, make: Callable[[World], str]) -> None:
    w.install(1)
    desired = make(w)
    w.server.target_bytes = 0
    w.run(desired)
    assert w.server.target_bytes == 0
    assert not any("fetched" in step for step in w.steps if step.startswith(desired))


def test_a_refused_bundle_is_not_fetched_again_and_hardly_asked_for(w: World) -> None:
    w.install(1)
    desired = alter_target(w)
    w.run(desired, 10)
    w.server.target_bytes, requests = 0, len(w.server.requests)
    w.run(desired, 8 * 3600)
    assert w.server.target_bytes == 0
    assert len(w.server.requests) - requests < 60, "a metered link pays for each"


def test_another_bundle_under_a_refused_counter_is_another(w: World) -> None:
    w.install(1)
    w.probe = lambda path, bundle: (_ for _ in ()).throw(BundleError("golden", "off"))
    w.run(w.publish(2))
    assert w.steps[-1] == "rul-2 refused golden"
    w.probe = lambda path, bundle: None
    w.publish(2, size=2001)
    w.run("rul-2", 120)
    assert w.active == "rul-2"
