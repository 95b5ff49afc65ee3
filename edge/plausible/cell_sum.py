"""The cells against the pack's voltage: two measurements of one thing, and which of them to doubt. Pure.

Cells and pack are not measured at one instant, and under load a pack's voltage moves by more than the bound within a
second. So a scan speaks against the pack only where the sum lies beyond all that the pack's voltage was since the
scan's first cell; one that leaves both open says nothing. Nor does one whose cells may have been measured under another
load: a load that comes and goes between two messages is seen in neither, but it is one that was there before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from edge.plausible.bounds import BOUNDS
from edge.plausible.course import Course, Pair

_POSSIBLE_V: Final[Mapping[str | None, tuple[float, float]]] = {
    "nmc": (2.0, 4.5),
    "nca": (2.0, 4.5),
    "lmo": (2.0, 4.5),
    "lfp": (1.5, 4.0),
    "lto": (1.0, 3.1),
    None: (0.8, 4.6),
}
"""Beyond this a cell of the chemistry is destroyed, or it was not measured."""
_SECOND_NS: Final = 1_000_000_000
_STEP_A: Final = 2.0
"""A smaller step of the current says nothing of the pack's resistance."""
_FORGETS: Final = 0.05
"""Of what is known of the resistance, with each step of the current."""
_LAGS: Final = 2
"""The cells may be of now or of a Sample ago."""
_LOADS: Final = 16
"""Into so many pieces the time is cut in which loads are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a Sample knows. cell_v: all of them; since_ns: when the oldest of them came, pack_ns: when pack_v did.

    is_open: the contactor was open when it was heard last. load_a: least and greatest current since the Sample before;
    None = only current_a is known.
    """

    mono_ns: int
    cell_v: Sequence[float]
    since_ns: int
    pack_v: float
    pack_ns: int
    current_a: float | None
    is_open: bool
    load_a: tuple[float, float] | None = None


@dataclass(slots=True, kw_only=True)
class Memory:
    """All that the next verdicts depend on."""

    judged_ns: int = -1
    agreed: int = 0  # scans, since one that was off while it was not proven that all cells are there
    off_ns: int | None = None  # the first of the scans that are off to one side, since one agreed
    offs: int = 0  # how many they are; < 0: the cells are below the pack
    good: Pair | None = None
    seen: tuple[float, float | None] | None = None  # pack_v and current of the last scan, while no step is known
    step_va: float = 0.0  # steps of pack voltage times those of the current, and the latter squared
    step_a2: float = 0.0
    suspects: tuple[tuple[int, ...], bool] = ((), False)  # positions of cells, whether the pack's voltage
    doubted: tuple[tuple[int, ...], bool] = ((), False)  # likewise, now that it has stayed so


class CellSum:
    """Looks at each complete scan; `doubted` says of which cells, and whether of the pack's voltage."""

    def __init__(
        self,
        cells: int,
        series: int | None,
        chemistry: str | None,
        max_age_ns: int,
        sample_ns: int,
        pack_max_age_ns: int = 0,
    ) -> None:
        """cells: how many are mapped. max_age_ns: of a cell. sample_ns: from one Sample to the next."""
        self.is_of_use = cells > 0 and series in (None, cells)
        """Without all cells in series there is nothing to compare."""
        self._possible_v = _POSSIBLE_V[chemistry]
        self._max_age_ns, self._sample_ns = max_age_ns, sample_ns
        self._persists_ns = int(BOUNDS.sum_persists * max_age_ns)
        self._ends_ns = max(max_age_ns, pack_max_age_ns) + sample_ns
        """So long after the last scan that could be judged: until then the next whole one may still come."""
        self._knows_series = series is not None
        self._memory = Memory()
        self._pack_v: deque[tuple[int, float, float]] = deque()
        self._courses = [Course() for _ in range(_LAGS)]
        self._told: deque[tuple[float, float | None]] = deque(maxlen=_LAGS)  # pack_v, current_a of the last Samples
        self._loads: deque[tuple[int, float, float]] = deque()  # (begin, least, greatest) of pieces of time

    @property
    def doubted(self) -> tuple[tuple[int, ...], bool]:
        """(Positions of cells, whether the pack's voltage)."""
        return self._memory.doubted

    def pack(self, mono_ns: int, lo_v: float, hi_v: float) -> None:
        """Once a Sample: least and greatest voltage of the pack within it."""
        told = self._pack_v
        told.append((mono_ns, lo_v, hi_v))
        while told[0][0] < mono_ns - self._max_age_ns - 2 * self._sample_ns:
            told.popleft()

    def _remember(self, mono_ns: int, lo_a: float, hi_a: float) -> None:
        """The loads of a Sample."""
        loads, whole_ns = self._loads, int(BOUNDS.sum_loads_s * _SECOND_NS)
        if loads and mono_ns - loads[-1][0] < whole_ns // _LOADS:
            begin_ns, lo, hi = loads[-1]
            loads[-1] = begin_ns, min(lo, lo_a), max(hi, hi_a)
        else:
            loads.append((mono_ns, lo_a, hi_a))
        while loads[0][0] < mono_ns - whole_ns:
            loads.popleft()

    def forget(self, mono_ns: int) -> None:
        """Once a Sample, whatever is known in it: a doubt ends when for too long nothing could be judged."""
        if mono_ns - self._memory.judged_ns > self._ends_ns:
            self._starts_anew()

    def look(self, now: Look) -> None:
        """Once a Sample in which all cells and the pack's voltage are known, after `pack`."""
        memory = self._memory
        if now.current_a is not None:
            self._remember(now.mono_ns, *(now.load_a or (now.current_a, now.current_a)))
        self._told.appendleft((now.pack_v, now.current_a))
        if now.is_open:  # what is told may be the car's side, which bleeds or is charged as it likes
            self._starts_anew()
            memory.judged_ns = now.mono_ns
            return
        if now.since_ns <= memory.judged_ns or now.pack_ns <= memory.judged_ns:
            return  # not a whole scan since the last one
        memory.judged_ns = now.mono_ns
        total_v = sum(now.cell_v)
        # A Sample holds what came in the time before it.
        within = [(lo, hi) for t_ns, lo, hi in self._pack_v if t_ns >= now.since_ns - self._sample_ns]
        lo_v, hi_v = min(lo for lo, _ in within), max(hi for _, hi in within)
        scale_v = max(abs(lo_v), abs(hi_v), 1e-3)
        hidden_v = self._hidden_v(now.current_a)
        if hidden_v is not None and memory.doubted == ((), False):
            self._follow(now, total_v, sum(hidden_v) / scale_v)
        well = BOUNDS.sum_off if memory.doubted == ((), False) else BOUNDS.sum_well
        if -well <= (total_v - hi_v) / scale_v and (total_v - lo_v) / scale_v <= well:
            self._agrees(Pair(total_v, now.pack_v, now.current_a))
            return
        if not memory.step_a2:  # better than nothing: from the start a load may never let a scan agree
            if memory.seen is not None:
                self._learn(now.pack_v - memory.seen[0], now.current_a, memory.seen[1])
            memory.seen = now.pack_v, now.current_a
        if hidden_v is not None:
            lo_v, hi_v = min(lo_v, now.pack_v - hidden_v[0]), max(hi_v, now.pack_v + hidden_v[1])
        is_above = (total_v - hi_v) / scale_v > BOUNDS.sum_off
        if is_above or (total_v - lo_v) / scale_v < -BOUNDS.sum_off:
            self._disagrees(now, Pair(total_v, now.pack_v, now.current_a), is_above)
        elif hidden_v is None:  # what came and went unseen is not known: only scans in a row prove anything
            memory.offs, memory.off_ns = 0, None

    def _follow(self, now: Look, total_v: float, loads: float) -> None:
        """Whether the cells keep to the pack's voltage as they have done."""
        for course, (pack_v, current_a) in zip(self._courses, self._told, strict=False):
            pair = Pair(total_v, pack_v, current_a)
            if course.is_left(now.mono_ns, pair, loads, self._persists_ns):
                self._memory.doubted = self._suspects(now.cell_v, pair, course.near)
                course.offs = 0

    def _hidden_v(self, current_a: float | None) -> tuple[float, float] | None:
        """By how much the pack may have been lower and higher under a load that came and went unseen [V].

        None: nobody knows.
        """
        if current_a is None or not self._memory.step_a2:
            return None
        ohm = self._ohm
        lo_a, hi_a = min(lo for _, lo, _ in self._loads), max(hi for _, _, hi in self._loads)
        return ohm * max(current_a - lo_a, 0.0), ohm * max(hi_a - current_a, 0.0)

    @property
    def _ohm(self) -> float:
        """The pack's resistance, roughly; 0 before there was a step of the current."""
        memory = self._memory
        return max(memory.step_va / memory.step_a2, 0.0) if memory.step_a2 else 0.0

    def _agrees(self, now: Pair) -> None:
        memory, before = self._memory, self._memory.good
        if before is not None:
            self._learn(now.pack_v - before.pack_v, now.current_a, before.current_a)
        memory.good, memory.agreed = now, memory.agreed + 1
        self._trusts()

    def _starts_anew(self) -> None:
        """What was off before a pause says nothing with what is off after it."""
        self._trusts()
        for course in self._courses:
            course.offs = 0

    def _trusts(self) -> None:
        memory = self._memory
        memory.offs, memory.off_ns, memory.doubted = 0, None, ((), False)

    def _learn(self, step_v: float, now_a: float | None, before_a: float | None) -> None:
        """Takes in by how much the pack's voltage moved when the current did."""
        if now_a is None or before_a is None or abs(now_a - before_a) < _STEP_A:
            return
        memory, step_a = self._memory, now_a - before_a
        memory.step_va += step_a * step_v - _FORGETS * memory.step_va
        memory.step_a2 += step_a * step_a - _FORGETS * memory.step_a2

    def _disagrees(self, now: Look, pair: Pair, is_above: bool) -> None:
        memory = self._memory
        if not self._knows_series and memory.agreed < BOUNDS.sum_learned:
            memory.agreed = 0
            return
        if memory.off_ns is None or (memory.offs > 0) is not is_above:
            memory.off_ns, memory.offs = now.mono_ns, 0
            memory.suspects = self._suspects(now.cell_v, pair, memory.good)
        memory.offs += 1 if is_above else -1
        if abs(memory.offs) >= 2 and now.mono_ns - memory.off_ns >= self._persists_ns:
            memory.doubted = memory.suspects

    def _suspects(self, cell_v: Sequence[float], now: Pair, good: Pair | None) -> tuple[tuple[int, ...], bool]:
        """Which is wrong: one cell that stands out by just that, what cannot be at all, what left its own course."""
        off_v, count = now.cells_v - now.pack_v, len(cell_v)
        every = tuple(range(count))
        middle_v = sorted(cell_v)[count // 2]
        worst = max(every, key=lambda i: abs(cell_v[i] - middle_v))
        if count > 2 and abs(cell_v[worst] - middle_v - off_v) <= BOUNDS.sum_one_cell * abs(off_v):
            return (worst,), False
        lo_v, hi_v = self._possible_v
        cells_can, pack_can = (lo_v <= volts / count <= hi_v for volts in (now.cells_v, now.pack_v))
        if cells_can != pack_can:
            return ((), True) if cells_can else (every, False)
        if good is not None:
            steps_a = (now.current_a or 0.0) - (good.current_a or 0.0)
            cells_left, pack_left = (
                abs(volts - before - self._ohm * steps_a)
                for volts, before in ((now.cells_v, good.cells_v), (now.pack_v, good.pack_v))
            )
            if pack_left > 2 * cells_left:
                return (), True
            if cells_left > 2 * pack_left:
                return every, False
        return every, True

    @property
    def state(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self._memory) | {
            "pack_v": list(self._pack_v),
            "loads": list(self._loads),
            "told": list(self._told),
            "courses": [course.state for course in self._courses],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`. KeyError, TypeError, ValueError: it is none."""
        told = dict(state)
        self._pack_v = deque((t_ns, lo, hi) for t_ns, lo, hi in told.pop("pack_v"))
        self._loads = deque((t_ns, lo, hi) for t_ns, lo, hi in told.pop("loads"))
        self._told = deque([(volts, amperes) for volts, amperes in told.pop("told", ())], maxlen=_LAGS)
        self._courses = [Course.of(course) for course in told.pop("courses", ())] or self._courses
        for name in ("suspects", "doubted"):
            cells, pack = told[name]
            told[name] = (tuple(cells), pack)
        good = told.pop("good")
        seen = told.pop("seen")
        self._memory = Memory(
            **told, seen=None if seen is None else tuple(seen), good=None if good is None else Pair(**good)
        )
