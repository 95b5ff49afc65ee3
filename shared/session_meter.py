"""Samples -> Sessions: `Meter` measures one pack with running sums, so that it needs little memory and little time.

How each value is measured, and when not, stands in `shared.feature_table`; current > 0 charges.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.feature_table import (
    ARRHENIUS_K,
    HOT_C,
    LOOK_EVERY_S,
    REST_C,
    REST_S,
    STEP_C,
    STEP_LEAST_V,
    STEP_S,
    STEP_SUM,
    STEP_TEMP_C,
)
from shared.reading import PackFacts, Reading
from shared.records import Session
from shared.window import Charge

Floats = npt.NDArray[np.float64]

SESSION_CYCLES: Final = 1.0
SESSION_S: Final = 14 * 86400.0
MOST_LOOKS: Final = 31
_GAP_S: Final = 60.0
"""Over a longer gap between two readings nothing is integrated."""
_SECOND_NS: Final = 1_000_000_000
_DAY_NS: Final = 86_400 * _SECOND_NS
_HOUR_S: Final = 3600.0
_KELVIN: Final = 273.15
_ROOM_K: Final = 298.15
_OUTLIER_V: Final = 0.01
"""A cell's answer to a step counts at most as the median's answer +- twice that +- this."""
_NAN: Final = math.nan
_HEAD: Final = struct.Struct("<4sHHHH")
_MAGIC: Final = b"PTM1"


class MeterStateError(ValueError):
    """Kept state is torn, or of another pack or version."""


@dataclass(slots=True)
class _Sums:
    """What a Session has shown so far; floats, NaN = not known yet."""

    elapsed_s: float = 0.0
    moved_ah: float = 0.0
    begin_ah: float = _NAN  # the BMS's throughput when it began
    cycles: float = _NAN
    throughput_ah: float = _NAN
    soh_bms: float = _NAN
    heat_ah_c: float = 0.0  # |current| x temperature
    heat_ah: float = 0.0
    spread_c_s: float = 0.0
    temps_s: float = 0.0
    hot_s: float = 0.0
    rest_s: float = 0.0
    looked_s: float = -math.inf
    step_sum: float = 0.0
    refused_steps: float = 0.0  # because of the temperature
    current_seen: float = 0.0
    cells_seen: float = 0.0


_SUMS: Final = attrgetter(*(item.name for item in fields(_Sums)))
_SUM_COUNT: Final = len(fields(_Sums))


@dataclass(slots=True)
class _Before:
    """The reading before; not kept over a restart."""

    mono_ns: int
    current_a: float | None
    cell_v: Floats


class Meter:
    """Measures one pack. `feed` each Reading once, in order; `to_bytes` is all that it knows, to go on from later."""

    def __init__(self, pack: PackFacts, state: bytes | None = None) -> None:
        """state: what `to_bytes` gave; MeterStateError (a ValueError) if it is not of this pack's size."""
        self.pack = pack
        self._sums = _Sums()
        self._charge = Charge(pack.chemistry, pack.nominal_ah)
        self._looks: list[float] = []
        self._xy = np.zeros(pack.series)  # per cell: current x voltage of the steps
        self._xx = np.zeros(pack.series)
        self._before: _Before | None = None
        self.last_t_ns: int | None = None
        self._least_step_a = STEP_C * pack.nominal_ah
        self._rest_a = REST_C * pack.nominal_ah
        self._step_least_v = STEP_LEAST_V.get(pack.chemistry, 0.0)
        if state is not None:
            self._restore(state)

    @property
    def elapsed_s(self) -> float:
        """How long the Session that runs has lasted."""
        return self._sums.elapsed_s

    def feed(self, reading: Reading) -> Session | None:
        """Takes in the next Reading; the Session that it ended, if it did (seq is 0: the outbox gives it)."""
        before = self._before
        dt_s = self._passed_s(reading, before)
        if dt_s == 0.0 and before is not None:
            return None
        sums = self._sums
        sums.elapsed_s += dt_s
        self._take_bms(reading)
        current_a, cell_v = reading.current_a, reading.cell_v
        seen_s = dt_s if before is not None and dt_s <= _GAP_S else 0.0
        temp_c = self._take_temps(reading, seen_s)
        moved_ah = 0.0
        if current_a is not None:
            sums.current_seen = 1.0
            if before is not None and before.current_a is not None:
                moved_ah = 0.5 * (current_a + before.current_a) * seen_s / _HOUR_S
                there_and_back_ah = 0.5 * (abs(current_a) + abs(before.current_a)) * seen_s / _HOUR_S
                sums.moved_ah += there_and_back_ah
                if temp_c is not None:
                    sums.heat_ah_c += there_and_back_ah * temp_c
                    sums.heat_ah += there_and_back_ah
                step_a = current_a - before.current_a
                if abs(step_a) >= self._least_step_a and STEP_S[0] <= dt_s <= STEP_S[1]:
                    self._step(step_a, cell_v, before.cell_v, temp_c)
            self._rest(current_a, cell_v, seen_s)
        if cell_v.size:
            sums.cells_seen = 1.0
        ended = self._charge.feed(reading.state, current_a, moved_ah, cell_v, temp_c, dt_s)
        self._before = _Before(reading.mono_ns, current_a, cell_v)
        if (ended and self._session_cycles() >= SESSION_CYCLES) or sums.elapsed_s >= SESSION_S:
            return self._close(reading)
        return None

    def _passed_s(self, reading: Reading, before: _Before | None) -> float:
        """Seconds since the reading before; across a restart by UTC, where it is known."""
        before_t_ns, t_ns = self.last_t_ns, reading.t_ns
        if t_ns is not None:
            self.last_t_ns = t_ns
        if before is not None and reading.mono_ns >= before.mono_ns:
            return (reading.mono_ns - before.mono_ns) / _SECOND_NS
        self._before = None
        if t_ns is None or before_t_ns is None:
            return 0.0
        return max(t_ns - before_t_ns, 0) / _SECOND_NS

    def _take_bms(self, reading: Reading) -> None:
        sums = self._sums
        if reading.soh_bms is not None:
            sums.soh_bms = reading.soh_bms
        if reading.cycles is not None:
            sums.cycles = reading.cycles
        if reading.throughput_ah is not None:
            sums.throughput_ah = reading.throughput_ah
            if not sums.begin_ah <= reading.throughput_ah:  # the first one, or the BMS began anew
                sums.begin_ah = reading.throughput_ah

    def _take_temps(self, reading: Reading, seen_s: float) -> float | None:
        """The mean of the sensors [degC]; None without any."""
        known = [t for t in reading.temp_c.tolist() if t == t]  # noqa: PLR0124 - NaN is not itself
        if not known:
            return None
        sums = self._sums
        mean_c = math.fsum(known) / len(known)
        sums.temps_s += seen_s
        sums.spread_c_s += seen_s * (max(known) - min(known))
        if mean_c > HOT_C:
            sums.hot_s += seen_s
        return mean_c

    def _step(self, step_a: float, cell_v: Floats, before_v: Floats, temp_c: float | None) -> None:
        """Adds the cells' answer to a current step to the least-squares sums, as it would be at 25 degC."""
        cells = self._xy.size
        if cell_v.size != cells or before_v.size != cells:
            return
        answer_v = cell_v - before_v
        valid = np.isfinite(answer_v)
        count = int(valid.sum())
        if 2 * count <= cells or _middle(cell_v[valid]) < self._step_least_v:
            return
        if temp_c is None or not STEP_TEMP_C[0] <= temp_c <= STEP_TEMP_C[1]:
            self._sums.refused_steps += 1
            return
        if count < cells:
            answer_v[~valid] = 0.0
        middle_v = _middle(answer_v[valid])
        if middle_v * step_a <= 0:  # current and voltages were not read together
            return
        reach_v = 2 * abs(middle_v) + _OUTLIER_V
        x_a = step_a * math.exp(ARRHENIUS_K * (1 / (temp_c + _KELVIN) - 1 / _ROOM_K))
        self._xy += np.clip(answer_v, middle_v - reach_v, middle_v + reach_v) * (x_a * valid)
        self._xx += x_a * x_a * valid
        self._sums.step_sum += (step_a / self.pack.nominal_ah) ** 2

    def _rest(self, current_a: float, cell_v: Floats, seen_s: float) -> None:
        """Looks at the cells' deviations when the pack has rested; again half an hour later at the earliest."""
        sums = self._sums
        if abs(current_a) > self._rest_a:
            sums.rest_s = 0.0
            return
        sums.rest_s += seen_s
        if sums.rest_s < REST_S or sums.elapsed_s - sums.looked_s < LOOK_EVERY_S:
            return
        known_v = cell_v[np.isfinite(cell_v)]
        if known_v.size < 2:
            return
        sums.looked_s = sums.elapsed_s
        self._looks.append(1000.0 * float(np.abs(known_v - np.median(known_v)).max()))
        del self._looks[:-MOST_LOOKS]

    def _session_cycles(self) -> float:
        return self._moved_ah() / 2 / self.pack.nominal_ah

    def _moved_ah(self) -> float:
        """By the BMS's count, which also knows what was not read; without one by ours."""
        counted = self._sums.throughput_ah - self._sums.begin_ah
        return counted if counted > self._sums.moved_ah else self._sums.moved_ah

    def _close(self, reading: Reading) -> Session:
        sums, pack = self._sums, self.pack
        session = _Draft(sums, self._charge, self._looks, *self._resistance()).session(pack, reading, self._moved_ah())
        begin_ah = sums.throughput_ah
        self._sums = _Sums(
            begin_ah=begin_ah, cycles=sums.cycles, throughput_ah=begin_ah, soh_bms=sums.soh_bms, rest_s=sums.rest_s
        )
        self._charge.begin_session()
        self._looks = []
        self._xy[:] = self._xx[:] = 0.0
        return session

    def _resistance(self) -> tuple[float, float]:
        """(mean, greatest) step resistance [mohm] of the cells; NaN when the steps do not suffice."""
        if self._sums.step_sum < STEP_SUM:
            return _NAN, _NAN
        enough = 2 * self._xx >= self._xx.max()
        r_mohm = 1000.0 * self._xy[enough] / self._xx[enough]
        return float(r_mohm.mean()), float(r_mohm.max())

    def to_bytes(self) -> bytes:
        """All of it, to be kept: 16 bytes a cell and a few hundred more."""
        charge = self._charge.state()
        head = _HEAD.pack(_MAGIC, self._xy.size, len(self._looks), len(charge), _SUM_COUNT)
        t_ns = -1 if self.last_t_ns is None else self.last_t_ns
        numbers = struct.pack(f"<q{_SUM_COUNT}d", t_ns, *_SUMS(self._sums))
        lists = struct.pack(f"<{len(self._looks) + len(charge)}d", *self._looks, *charge)
        return head + numbers + lists + self._xy.tobytes() + self._xx.tobytes()

    def _restore(self, state: bytes) -> None:
        try:
            magic, cells, looks, charge, sums = _HEAD.unpack_from(state)
            if (magic, cells, sums) != (_MAGIC, self._xy.size, _SUM_COUNT):
                raise MeterStateError(f"kept measurements of {cells} cells, here {self._xy.size}")
            shape = struct.Struct(f"<q{sums + looks + charge + 2 * cells}d")
            t_ns, *numbers = shape.unpack(state[_HEAD.size :])
        except struct.error as error:
            raise MeterStateError(f"kept measurements cannot be read: {error}") from None
        self.last_t_ns = None if t_ns < 0 else t_ns
        self._sums = _Sums(*numbers[:sums])
        self._looks = numbers[sums : sums + looks]
        self._charge.restore(numbers[sums + looks : sums + looks + charge])
        self._xy, self._xx = np.array(numbers[-2 * cells :] if cells else []).reshape(2, cells)


def _middle(values: Floats) -> float:
    """The upper median: faster than the exact one and here as good."""
    half = values.size // 2
    return float(np.partition(values, half)[half])


@dataclass(slots=True)
class _Draft:
    """The Session that the sums amount to."""

    sums: _Sums
    charge: Charge
    looks: list[float]
    r_mohm: float
    r_max_mohm: float
    reasons: dict[str, str] = field(default_factory=dict)

    def session(self, pack: PackFacts, reading: Reading, moved_ah: float) -> Session:
        """With a reason for each value that there is not."""
        sums, keep = self.sums, self._keep
        cells = "no_step" if sums.cells_seen and sums.current_seen else "absent"
        step = "temperature" if sums.refused_steps and cells == "no_step" else cells
        window = self.charge.reason if cells == "no_step" else "absent"
        cycles = sums.throughput_ah / 2 / pack.nominal_ah if math.isnan(sums.cycles) else sums.cycles
        temps = sums.temps_s or _NAN
        return Session(
            pack_id=pack.pack_id,
            seq=0,
            mono_ns=reading.mono_ns,
            t_ns=reading.t_ns,
            duration_s=sums.elapsed_s,
            cycles=keep("cycles", cycles, "absent"),
            throughput_ah=keep("throughput_ah", sums.throughput_ah, "absent"),
            soh_bms=keep("soh_bms", sums.soh_bms, "absent"),
            age_days=keep("age_days", _age_days(pack, reading), "no_time" if reading.t_ns is None else "absent"),
            moved_ah=keep("moved_ah", moved_ah if sums.current_seen or moved_ah else _NAN, "absent"),
            r_step_mohm=keep("r_step_mohm", self.r_mohm, step),
            r_step_max_mohm=keep("r_step_max_mohm", self.r_max_mohm, step),
            cell_dev_mv=keep(
                "cell_dev_mv",
                float(np.median(self.looks)) if self.looks else _NAN,
                "no_rest" if sums.cells_seen else "absent",
            ),
            temp_mean_c=keep("temp_mean_c", sums.heat_ah_c / (sums.heat_ah or _NAN), "absent"),
            temp_spread_c=keep("temp_spread_c", sums.spread_c_s / temps, "absent"),
            hot_h=keep("hot_h", sums.hot_s / _HOUR_S * (temps / temps), "absent"),
            window_ah=keep("window_ah", self.charge.window_ah(), window),
            reasons=self.reasons,
        )

    def _keep(self, name: str, value: float, reason: str) -> float | None:
        if math.isnan(value):
            self.reasons[name] = reason
            return None
        return value


def _age_days(pack: PackFacts, reading: Reading) -> float:
    if reading.t_ns is None or pack.commissioned_t_ns is None:
        return _NAN
    return max(reading.t_ns - pack.commissioned_t_ns, 0) / _DAY_NS
