"""Only metadata that the right keys signed, in order and in time by the clock that is given, is believed."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.tuf_repo import TufRepo

from edge.ota.fetch import NotThere, WrongLength
from edge.ota.store import StoreError
from edge.ota.tuf_client import LookedUp, Untrusted, look_up
from edge.transport import Unavailable

DAY_NS = 86_400 * 10**9
T_NS = 20_500 * DAY_NS
NAME = "rul-2.bundle"
CUSTOM = {"model_id": "rul-2", "counter": 2, "feature_schema": "s", "hardware": "cpu", "chemistry": ["nmc", "lfp"]}


class Client:
    """One device before one repository."""

    def __init__(self, folder: Path, repo: TufRepo) -> None:
        self.folder, self.repo, self.root = folder, repo, repo.root
        self.alter: Callable[[str, bytes], bytes] = lambda path, body: body
        self.asked: list[str] = []

    def look(self, days: float = 0, name: str = NAME) -> LookedUp:
        return look_up(self.folder, self.root, name, self.get, T_NS + int(days * DAY_NS))

    def refusal(self, days: float = 0, name: str = NAME) -> str:
        with pytest.raises(Untrusted) as error:
            self.look(days, name)
        return error.value.reason

    def get(self, path: str, max_bytes: int) -> bytes:
        self.asked.append(path)
        file = self.repo.folder / path
        if not file.is_file():
            raise NotThere(f"no {path}")
        body = self.alter(path, file.read_bytes())
        if len(body) > max_bytes:
            raise WrongLength(longer=True)
        return body


@pytest.fixture
def repo(tmp_path: Path) -> TufRepo:
    repo = TufRepo(tmp_path / "repo", T_NS)
    repo.add(NAME, b"bundle" * 100, CUSTOM)
    repo.publish()
    return repo


@pytest.fixture
def client(tmp_path: Path, repo: TufRepo) -> Client:
    return Client(tmp_path / "tuf", repo)


def test_what_is_signed_is_told(client: Client, repo: TufRepo) -> None:
    found = client.look()
    assert (repo.folder / found.path).read_bytes() == b"bundle" * 100
    assert found.signed.length == 600 and found.signed.model_id == "rul-2" and found.signed.counter == 2
    assert found.signed.chemistry == ("nmc", "lfp") and found.signed.hardware == "cpu"
    days = {role: round((at - T_NS) / DAY_NS, 1) for role, at in found.expires_ns.items()}
    assert days == {"root": 365, "timestamp": 1, "snapshot": 7, "targets": 90}
    client.asked.clear()
    assert client.look() == found
    assert client.asked == ["metadata/2.root.json", "metadata/timestamp.json"], "the rest is known"


@pytest.mark.parametrize("custom", [{}, {"counter": "2", "model_id": 3, "chemistry": "nmc", "hardware": None}])
def test_what_custom_does_not_say_is_none(client: Client, repo: TufRepo, custom: dict[str, Any]) -> None:
    repo.add(NAME, b"x", custom)
    repo.publish()
    signed = client.look().signed
    assert {signed.model_id, signed.counter, signed.feature_schema, signed.hardware, signed.chemistry} == {None}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_an_altered_byte_of_any_metadata_is_no_signature(client: Client, role: str) -> None:
    def alter(path: str, body: bytes) -> bytes:
        return body.replace(b'"version":1', b'"version":2', 1) if role in path else body

    client.alter = alter
    assert client.refusal() == "signature"


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_wrong_key_is_no_signature(client: Client, repo: TufRepo, tmp_path: Path, role: str) -> None:
    repo.signers[role] = TufRepo(tmp_path / "other", T_NS).signers[role]
    repo.publish()
    assert client.refusal() == "signature"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"[" * 50_000, b'{"signed": {"version": ' + b"1" * 5000 + b"}}"])
def test_what_is_no_metadata_at_all_is_no_signature(client: Client, body: bytes) -> None:
    client.alter = lambda path, _: body
    assert client.refusal() == "signature"


def test_metadata_without_end_is_not_read(client: Client) -> None:
    client.alter = lambda path, body: body + b" " * 6_000_000
    assert client.refusal() == "signature"


def test_any_garbled_byte_is_no_signature_and_never_a_surprise(client: Client, repo: TufRepo) -> None:
    """Whatever arrives: Untrusted or the truth, no other exception and no other bundle."""
    chance = random.Random(7)
    truth = client.look().signed
    files = sorted((repo.folder / "metadata").iterdir())
    for attempt in range(400):
        garbled = chance.choice(files)
        body = bytearray(garbled.read_bytes())
        for _ in range(chance.choice([1, 1, 1, 3])):
            at, how = chance.randrange(len(body)), chance.randrange(3)
            if how == 0:
                body[at] = chance.randrange(256)
            elif how == 1:
                del body[at : at + chance.choice([1, 2, 40])]
            else:
                body[at:at] = chance.choice([b"0", b'"', b"{", b"\\u0000", b"e999", b"null", b"\xff"])
        name = garbled.name
        client.alter = lambda path, right, name=name, body=bytes(body): body if path.endswith(name) else right
        client.folder = client.folder.parent / f"tuf{attempt}"
        try:
            assert client.look().signed == truth
        except Untrusted as error:
            assert error.reason in ("signature", "counter", "expired")


def test_a_bundle_that_nobody_signed_is_no_bundle(client: Client) -> None:
    assert client.refusal(name="rul-3.bundle") == "signature"


@pytest.mark.parametrize(("days", "reason"), [(1.1, "expired"), (366, "expired"), (3650, "expired")])
def test_the_given_clock_judges_what_has_expired(client: Client, days: float, reason: str) -> None:
    """The host's clock says something else in either case: python-tuf's own would not see it."""
    assert client.refusal(days) == reason
    assert client.look(0.9).signed.counter == 2, "and what was refused in time to come is believed now"


@pytest.mark.parametrize("role", ["targets", "snapshot", "root"])
def test_each_role_expires(tmp_path: Path, role: str) -> None:
    repo = TufRepo(tmp_path / "repo", T_NS)
    repo.lifetime[role] = -1
    repo.add(NAME, b"x", CUSTOM)
    if role == "root":
        repo.rotate_root()
    repo.publish()
    assert Client(tmp_path / "tuf", repo).refusal() == "expired"


def test_older_metadata_than_was_seen_is_refused_and_newer_is_taken_again(client: Client, repo: TufRepo) -> None:
    old = repo.save()
    repo.publish()
    client.look()
    new = repo.save()
    repo.restore(old)
    assert client.refusal() == "counter"
    repo.restore(new)
    client.look()


def test_a_key_changed_by_a_signed_rotation_is_followed(client: Client, repo: TufRepo, tmp_path: Path) -> None:
    client.look()
    for _ in range(3):
        repo.rotate_root()
    assert client.look().signed.counter == 2
    assert client.look().signed.counter == 2, "from its cache, too"
    fresh = Client(tmp_path / "fresh", repo)
    fresh.root = client.root
    assert fresh.look().signed.counter == 2, "a device that was away for all of them"


@pytest.mark.parametrize("signed", [{"signed_by_old": False}, {"signed_by_new": False}])
def test_a_rotation_that_one_side_did_not_sign_is_refused(
    client: Client, repo: TufRepo, signed: dict[str, bool]
) -> None:
    client.look()
    repo.rotate_root(**signed)
    assert client.refusal() == "signature"


def test_the_key_before_a_rotation_signs_nothing_any_more(client: Client, repo: TufRepo) -> None:
    stolen = repo.signers["timestamp"]
    repo.rotate_root()
    client.look()
    repo.signers["timestamp"] = stolen
    repo.publish()
    assert client.refusal() == "signature"


def test_another_repositorys_root_is_not_trusted(client: Client, tmp_path: Path) -> None:
    client.root = TufRepo(tmp_path / "other", T_NS).root
    assert client.refusal() == "signature"


def test_keys_that_were_all_made_anew_need_only_the_new_root(client: Client, repo: TufRepo, tmp_path: Path) -> None:
    """The cache of the repository before, which nobody can sign for any more, must not be in the way."""
    repo.rotate_root()
    client.look()
    other = TufRepo(tmp_path / "other", T_NS)
    other.add(NAME, b"x", CUSTOM)
    other.publish()
    client.repo, client.root = other, other.root
    assert client.look().signed.length == 1


def test_a_torn_cache_is_fetched_again(client: Client, repo: TufRepo) -> None:
    repo.rotate_root()
    client.look()
    files = [path for path in client.folder.rglob("*") if path.is_file()]
    assert len(files) >= 5
    for torn in files:
        for content in (b"", torn.read_bytes()[:100], b"\0" * 300):
            torn.write_bytes(content)
            (client.folder / "tmpleftover").write_bytes(b"x")
            assert client.look().signed.counter == 2, torn
    assert not list(client.folder.glob("tmp*"))


def test_a_cache_that_cannot_be_used_is_thrown_away(client: Client, repo: TufRepo) -> None:
    client.folder.mkdir()
    (client.folder / "root_history").write_bytes(b"a file where a folder should be")
    with pytest.raises(StoreError):
        client.look()
    assert client.look().signed.counter == 2


def test_the_networks_troubles_are_the_networks(client: Client, repo: TufRepo) -> None:
    def cut(path: str, body: bytes) -> bytes:
        raise Unavailable("cut")

    client.alter = cut
    with pytest.raises(Unavailable):
        client.look()
    client.alter = lambda path, body: body
    (repo.folder / "metadata" / "timestamp.json").unlink()
    with pytest.raises(NotThere):
        client.look()


def test_it_works_without_cryptography(client: Client, repo: TufRepo) -> None:
    """On the edge there is no cryptography package: the fallback must accept what is right and nothing else."""
    client.look()
    code = f"""
import sys
sys.modules["cryptography"] = None
from pathlib import Path
from edge.ota.tuf_client import look_up, Untrusted
repo, root = Path({str(repo.folder)!r}), Path({str(repo.folder / "metadata" / "1.root.json")!r}).read_bytes()
def get(path, most):
    from edge.ota.fetch import NotThere
    if not (repo / path).is_file():
        raise NotThere(path)
    return (repo / path).read_bytes()
def forged(path, most):
    body = get(path, most)
    at = body.index(b'"sig":"') + 7
    return body[:at] + (b"1" if body[at:at + 1] == b"0" else b"0") + body[at + 1:] if "timestamp" in path else body
print(look_up(Path({str(client.folder / "bare")!r}), root, {NAME!r}, get, {T_NS}).signed.model_id)
try:
    look_up(Path({str(client.folder / "forged")!r}), root, {NAME!r}, forged, {T_NS})
except Untrusted as error:
    print(error.reason)
import cryptography
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["rul-2", "signature"], done.stderr
    assert "import of cryptography halted" in done.stderr


def test_nothing_of_tuf_is_imported_before_it_is_needed() -> None:
    code = "import sys, edge.model_command; print([m for m in sys.modules if m.startswith('tuf')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
