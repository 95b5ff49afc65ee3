"""What the cloud desires, one piece of work at a time, until it runs here or is refused.

Decisions are `edge.ota.decide`'s; here is what they need of the disk, the network and the probe. Nothing in here stops
inference: what runs goes on running until `active` says something else.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge.clock import Clock
from edge.ota import decide
from edge.ota.fetch import Origin, Web, WrongLength
from edge.ota.keeper import Active, Keeper
from edge.ota.state import OPERATOR, State, Told, status_of
from edge.ota.store import Folder, StoreError, file_sha256
from edge.transport import Forbidden, Unavailable
from shared.bundle import MAX_BYTES, Bundle, BundleError, read
from shared.errors import ConfigError
from shared.manifest import REASONS

if TYPE_CHECKING:
    from edge.ota.tuf_client import LookedUp

log = logging.getLogger(__name__)

_SECOND_NS: Final = 1_000_000_000
_REST_S: Final = 1.0
_CHECKED_S: Final = 600.0
"""So long a look at the signed metadata is fresh enough to install by."""
_FIRST_WAIT_S: Final = 2.0
_LONGEST_WAIT_S: Final = 60.0
_LONGEST_DOUBT_S: Final = 300.0
_LONGEST_AGAIN_S: Final = 3600.0
_IMAGE: Final = "/device/v1/image/"


class Updates:
    """The models of one device, in `folder` (held until `close`).

    One thread calls `step` (it may block for minutes while something is fetched, `stop` ends that); any other may read
    `active` and call `good_answer`, `bad` and `rollback`.

    root: the root metadata this device trusts; None = nothing can be installed. origin: None = no cloud is configured.
    now_t_ns: UTC as trusted now, None = not yet. chemistry: of the packs here; a bundle for none of them is refused.
    probe(path, bundle): tries the bundle out, raises BundleError. report(told): puts a step into the outbox, raises
    PacktwinError where it cannot now; a step is told again when the agent was killed meanwhile.
    Raises ConfigError where root is no root metadata, StoreError where the folder cannot be used or is held already.
    """

    def __init__(  # noqa: PLR0913
        self,
        folder: Path,
        *,
        root: bytes | None,
        origin: Origin | None,
        now_t_ns: Callable[[], int | None],
        feature_schema: str,
        hardware: str,
        probe: Callable[[Path, Bundle], None],
        report: Callable[[Told], None],
        chemistry: Collection[str] = (),
        mono_ns: Callable[[], int] | None = None,
    ) -> None:
        self._root = root if root is None else checked_root(root)
        self._web = Web(origin) if origin is not None else None
        self._now_t_ns, self._mono_ns = now_t_ns, mono_ns or Clock().mono_ns
        self._device = decide.Device(
            feature_schema=feature_schema, hardware=hardware, max_bytes=MAX_BYTES, chemistry=frozenset(chemistry)
        )
        self._probe = probe
        self._folder = Folder(folder)
        self._keeper = Keeper(self._folder, now_t_ns, report)
        self._desired: str | None = None
        self._looked_up: tuple[str, LookedUp, int] | None = None
        self._not_before_ns = 0
        self._failures = 0

    @property
    def active(self) -> Active | None:
        """What is to run now; None = no model."""
        return self._keeper.active

    @property
    def problem(self) -> str | None:
        """Why nothing moves, in one sentence; None = all is well."""
        return self._keeper.problem

    def status(self) -> dict[str, Any]:
        """What `edge model status --json` prints."""
        return status_of(self._keeper.state)

    def close(self) -> None:
        """Lets go of the folder; ends a `step` that is under way."""
        self.stop()
        self._keeper.close()

    def stop(self) -> None:
        """Ends a download that is under way; it goes on from there after the next start."""
        if self._web is not None:
            self._web.stop()

    # What inference and people have to say

    def good_answer(self, sha256: str | None = None) -> None:
        """The model gave an answer that can be. Costs nothing once it is proven.

        sha256: of the model that answered, None = the active one; another one's answers prove nothing of it.
        """
        self._keeper.good_answer(sha256)

    def bad(self, reason: str, sha256: str | None = None) -> None:
        """The model crashed or hung (`crash`, `timeout`: say each one, the second counts), or what it answered cannot
        be (`not_finite`, `out_of_range`: the first counts), or its file cannot be read (`target_hash`).

        `active` may be another one afterwards. sha256 as in `good_answer`.
        """
        self._keeper.bad(reason, sha256)

    def rollback(self, reason: str = OPERATOR) -> bool:
        """A person wants the model before; False = there is none. Only a higher counter is taken afterwards."""
        return self._keeper.rollback(reason)

    # The way of a bundle

    def step(self, desired: str | None) -> float:
        """One piece of work towards `desired` (None = keep what runs). Returns the seconds until the next makes sense,
        at most 1: requests of people are looked for each time. Never raises for the network or the disk.
        """
        try:
            self._keeper.take_request()
            self._keeper.settle()
            if desired != self._desired:
                self._desired, self._failures, self._not_before_ns = desired, 0, 0
            if self._mono_ns() < self._not_before_ns:
                return _REST_S
            busy = self._work(desired)
        except (Unavailable, Forbidden, StoreError) as error:
            self._wait(str(error), _LONGEST_WAIT_S, getattr(error, "retry_after_s", None) or 0.0)
            return _REST_S
        return 0.0 if busy else _REST_S

    def _work(self, desired: str | None) -> bool:
        """Whether there may be more to do at once."""
        name = decide.named(desired)
        if name is None or decide.runs(self._state, name):
            self._well(None if desired is None or name is not None else f"{desired!r:.80} is no name of a bundle")
            return False
        if not decide.pursued(self._state, name):
            return self._meet(name)
        found = self._fresh(name)
        if found is None:
            return False
        candidate = self._state.candidate
        if candidate is None or candidate.model_id != name.model_id:
            return True
        work = {"seen": self._fetch, "fetched": self._verify, "verified": self._try_out, "probed": self._activate}
        work[candidate.step](found)
        self._well(None)
        return True

    def _meet(self, name: decide.Named) -> bool:
        """A name that is not on its way yet: it is from now on, unless it was refused before."""
        if not decide.barred(self._state, name, None):
            self._advance(lambda state: decide.seen(state, name, self._now_t_ns()))
            return True
        if decide.hopeless(self._state, name):
            self._well(None)
            return False
        # Only another bundle under the same name and counter would be worth a try; nobody should make one.
        found = self._look_up(name)
        if found is not None and not decide.barred(self._state, name, found.signed.sha256):
            self._advance(lambda state: decide.seen(state, name, self._now_t_ns()))
            return True
        self._wait(f"{name.model_id} was refused before", _LONGEST_AGAIN_S)
        return False

    def _fresh(self, name: decide.Named) -> LookedUp | None:
        """What is signed of the candidate, not older than `_CHECKED_S`. None = nothing that may be installed now."""
        known = self._looked_up
        if known is not None and known[0] == name.model_id and self._now_t_ns() is not None:
            fresh = self._mono_ns() - known[2] < _CHECKED_S * _SECOND_NS
            if fresh and _is_on(self._state, known[1]):
                return known[1]
        found = self._look_up(name)
        if found is None:
            return None
        self._advance(lambda state: decide.signed(state, found.signed, self._device, self._now_t_ns()), name)
        candidate = self._state.candidate
        if candidate is None or candidate.sha256 != found.signed.sha256:
            return None
        self._looked_up = name.model_id, found, self._mono_ns()
        return found

    def _look_up(self, name: decide.Named) -> LookedUp | None:
        """Verifies the repository's metadata anew. None = it cannot be believed, or the clock cannot."""
        now = self._now_t_ns()
        if now is None:
            self._wait("the clock is not trusted yet: nothing is installed before", _REST_S)
            return None
        if self._root is None or self._web is None:
            self._doubt(name, "signature", "edge.toml names no trust_root: nothing can be verified")
            return None
        from edge.ota.tuf_client import Untrusted, look_up

        web = self._web
        try:
            with self._keeper.watched():
                found = look_up(
                    self._folder.tuf,
                    self._root,
                    f"{name.model_id}.bundle",
                    lambda path, most: web.get(_IMAGE + path, most),
                    now,
                )
        except Untrusted as error:
            behind = decide.clock_wrong(self._state, now, {})
            self._doubt(name, "clock" if behind else error.reason, str(error))
            return None
        if decide.clock_wrong(self._state, now, found.expires_ns):
            self._doubt(name, "clock", "the clock is behind what is signed")
            return None
        self._advance(lambda state: decide.valid_at(state, now))
        return found

    def _doubt(self, name: decide.Named, reason: str, detail: str) -> None:
        self._advance(lambda state: decide.doubted(state, reason, self._now_t_ns()), name)
        self._wait(f"{name.model_id} is not installed ({reason}): {detail}", _LONGEST_DOUBT_S)

    def _fetch(self, found: LookedUp) -> None:
        assert self._web is not None
        sha256, started_ns = found.signed.sha256, self._mono_ns()
        try:
            self._folder.sweep(self._keeper.kept() | {sha256})
            with self._keeper.watched():
                fetched = self._web.resume(_IMAGE + found.path, self._folder.part(sha256), found.signed.length)
            self._folder.complete(sha256)
        except WrongLength as error:
            self._folder.discard(sha256)
            reason = "too_large" if error.longer else "target_hash"
            self._advance(lambda state: decide.refused(state, reason, self._now_t_ns()), found)
            return
        except OSError as error:
            raise StoreError(f"the bundle cannot be stored: {error.strerror}") from None
        numbers = {
            "bytes": float(found.signed.length),
            "received_bytes": float(fetched.received_bytes),
            "requests": float(fetched.requests),
            "seconds": (self._mono_ns() - started_ns) / _SECOND_NS,
        }
        self._advance(
            lambda state: decide.fetched(state, whole=fetched.whole, numbers=numbers, t_ns=self._now_t_ns()), found
        )

    def _verify(self, found: LookedUp) -> None:
        """The bytes against what is signed, then the inside against what it says itself."""
        sha256 = found.signed.sha256
        if not self._folder.sound(sha256):  # else it was moved, and the agent killed before it could say so
            part = self._folder.part(sha256)
            try:
                matches = file_sha256(part) == sha256
            except OSError:
                self._advance(decide.vanished, found)
                return
            if not matches:
                self._folder.discard(sha256)
                self._advance(lambda state: decide.mismatched(state, self._now_t_ns()), found)
                return
            self._folder.settle(sha256)
        try:
            reason = self._misfit(self._read(sha256), found)
        except BundleError as error:
            log.warning("%s is refused: %s", found.path, error)
            reason = error.reason
        self._advance(
            lambda state: (
                decide.verified(state, self._now_t_ns())
                if reason is None
                else decide.refused(state, reason, self._now_t_ns())
            ),
            found,
        )

    def _misfit(self, bundle: Bundle, found: LookedUp) -> str | None:
        """Why the bundle's own manifest does not belong here, or is not what its metadata said; None = all agrees."""
        manifest = bundle.manifest
        told = decide.Signed(
            sha256=found.signed.sha256,
            length=found.signed.length,
            model_id=manifest.model_id,
            counter=manifest.counter,
            feature_schema=manifest.feature_schema,
            hardware=manifest.hardware,
            chemistry=tuple(manifest.chemistry),
        )
        state = self._state
        return decide.unfit(state, told, self._device) if _is_on(state, found) else "manifest"

    def _try_out(self, found: LookedUp) -> None:
        sha256, started_ns = found.signed.sha256, self._mono_ns()
        if not self._advance(lambda state: decide.probing(state, self._now_t_ns()), found):
            return
        if not _is_on(self._state, found):
            return
        try:
            with self._keeper.watched():
                self._probe(self._folder.bundle(sha256), self._read(sha256))
        except BundleError as error:
            log.warning("%s is refused by its probe: %s", found.path, error)
            reason = error.reason if error.reason in REASONS else "crash"
            self._advance(lambda state: decide.refused(state, reason, self._now_t_ns()), found)
            return
        except OSError as error:  # no memory, no onnxruntime: trouble of this machine
            self._advance(decide.unprobed, found)
            raise StoreError(f"the probe cannot be made: {error.strerror or error}") from None
        numbers = {"seconds": (self._mono_ns() - started_ns) / _SECOND_NS}
        self._advance(lambda state: decide.probed(state, numbers=numbers, t_ns=self._now_t_ns()), found)

    def _activate(self, found: LookedUp) -> None:
        if not self._folder.sound(found.signed.sha256):
            self._advance(decide.vanished, found)
            return
        self._advance(lambda state: decide.activated(state, self._now_t_ns()), found)

    def _read(self, sha256: str) -> Bundle:
        try:
            return read(self._folder.bundle(sha256).read_bytes())
        except OSError as error:
            raise StoreError(f"the bundle cannot be read: {error.strerror}") from None

    @property
    def _state(self) -> State:
        return self._keeper.state

    def _advance(self, decision: Callable[[State], State], on: LookedUp | decide.Named | None = None) -> bool:
        """Applies a decision; False = meanwhile the candidate is not the one (`on`) that it is about."""
        return self._keeper.advance(decision, None if on is None else lambda state: _is_on(state, on))

    # Pace

    def _wait(self, problem: str, longest_s: float, at_least_s: float = 0.0) -> None:
        self._keeper.note(problem)
        wait_s = max(min(longest_s, _FIRST_WAIT_S * 2.0 ** min(self._failures, 20)), at_least_s)
        self._failures += 1
        self._not_before_ns = self._mono_ns() + int(wait_s * _SECOND_NS)

    def _well(self, problem: str | None) -> None:
        self._failures = 0
        self._keeper.note(problem)


def checked_root(root: bytes) -> bytes:
    """The bytes, if they look like root metadata; who signed what is python-tuf's to say. ConfigError else."""
    try:
        if json.loads(root)["signed"]["_type"] == "root":
            return root
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ConfigError("trust_root is no root metadata of a repository: give the root.json that `cloud release` made")


def _is_on(state: State, it: LookedUp | decide.Named) -> bool:
    """Whether the candidate is that one."""
    candidate = state.candidate
    if candidate is None:
        return False
    if isinstance(it, decide.Named):
        return candidate.model_id == it.model_id
    return candidate.sha256 == it.signed.sha256
