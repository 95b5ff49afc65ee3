"""The records that travel: frozen, every number's name ends in its unit, None = not known (with a reason).

Current > 0 charges. Times: `mono_ns` counts from the host's boot, `t_ns` is UTC; None = the clock was not trusted yet.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final

REJECT_REASONS: Final = (
    "malformed",
    "unknown_schema",
    "unknown_pack",
    "too_old",
    "too_large",
    "not_yours",
    "bad_time",
)
GAP_CAUSES: Final = ("killed", "power_cut", "evicted", "bus_overflow")
SESSION_REASONS: Final = (
    "absent",
    "no_time",
    "no_step",
    "no_rest",
    "no_charge",
    "short_window",
    "fast_charge",
    "uneven_charge",
    "temperature",
    "out_of_range",
)
"""Why a field of a Session is None."""
SEVERITIES: Final = ("info", "warning", "critical")
CAPTURE_FILES: Final = ("log", "serial", "state")
"""Of a Capture: CAN frames as a candump log, chunks of serial lines as JSON lines, and as JSON what a replay needs."""
MAX_PART_BYTES: Final = 64 << 10
"""Of a Capture's data."""
MAX_PARTS: Final = 16_384
MODES: Final = {"live": 1.0, "normal": 5.0, "economy": 60.0}
"""Uplink mode -> seconds between two sends."""


def new_boot() -> int:
    """A random 64-bit id of one start of the agent; 16 hex digits wherever it is text."""
    return secrets.randbits(63) | 1


def boot_hex(boot: int) -> str:
    """The boot as text."""
    return f"{boot:016x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One pack at one instant. Every field's unit, resolution and range stand in `shared.fields`."""

    pack_id: str
    seq: int
    mono_ns: int
    t_ns: int | None = None
    pack_v: float | None = None
    current_a: float | None = None
    soc_bms: float | None = None
    soh_bms: float | None = None
    charge_limit_a: float | None = None
    discharge_limit_a: float | None = None
    insulation_kohm: float | None = None
    ambient_c: float | None = None
    coolant_in_c: float | None = None
    coolant_out_c: float | None = None
    speed_kmh: float | None = None
    odometer_km: float | None = None
    throughput_ah: float | None = None
    energy_kwh: float | None = None
    cycles: float | None = None
    state: str | None = None
    contactor_main: bool | None = None
    contactor_precharge: bool | None = None
    charge_mos: bool | None = None
    discharge_mos: bool | None = None
    pack_v_min: float | None = None
    pack_v_max: float | None = None
    current_a_min: float | None = None
    current_a_max: float | None = None
    cell_v: tuple[float | None, ...] = ()  # by position in the pack; () = the source gives no cells
    temp_c: tuple[float | None, ...] = ()  # battery sensors only
    balancing: int | None = None  # bit i = the cell at position i is being balanced
    alarms: tuple[str, ...] = ()  # `code` or `code:warning`
    quality: dict[str, str] = field(default_factory=dict)  # field -> why it is None
    extra: dict[str, float | None] = field(default_factory=dict)  # any further mapped signal, in its declared unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What the twin and the models say of a pack at one instant; None + `reason` when it cannot be said."""

    pack_id: str
    seq: int
    mono_ns: int
    t_ns: int | None = None
    soc: float | None = None
    soc_lo: float | None = None
    soc_hi: float | None = None
    soh_capacity: float | None = None
    soh_capacity_lo: float | None = None
    soh_capacity_hi: float | None = None
    soh_resistance: float | None = None
    power_limit_charge_2s_w: float | None = None
    power_limit_charge_10s_w: float | None = None
    power_limit_discharge_2s_w: float | None = None
    power_limit_discharge_10s_w: float | None = None
    usable_kwh: float | None = None
    rul_cycles: float | None = None
    rul_cycles_lo: float | None = None
    rul_cycles_hi: float | None = None
    p_eol_100: float | None = None
    failure_probability: float | None = None
    in_domain: bool | None = None
    model_id: str | None = None
    model_sha256: str | None = None
    reason: str | None = None
    r0_mohm: tuple[float, ...] = ()
    cell_soc: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What a stretch of use of one pack showed: it ends with a charge once a full cycle has moved, or after 14 days.

    Made on the edge by `shared.session_meter.Meter`. None = not measured, `reasons` says why.
    """

    pack_id: str
    seq: int
    mono_ns: int
    t_ns: int | None = None  # its end
    duration_s: float
    cycles: float | None = None  # equivalent full cycles of the pack at its end
    throughput_ah: float | None = None  # Ah in + out of the pack at its end, ever
    soh_bms: float | None = None  # 0..1, as the BMS claims, at its end
    age_days: float | None = None  # since the pack was commissioned
    moved_ah: float | None = None  # Ah in + out within it
    r_step_mohm: float | None = None  # resistance to a current step within 1 s, mean over cells, corrected to 25 degC
    r_step_max_mohm: float | None = None  # that of the worst cell
    cell_dev_mv: float | None = None  # greatest |cell - pack median| at rest, median over its looks
    temp_mean_c: float | None = None  # weighted with |current|
    temp_spread_c: float | None = None  # hottest - coldest sensor, mean over time
    hot_h: float | None = None  # hours seen with the mean of the sensors above 35 degC
    window_ah: float | None = None  # charge taken while the mean cell crossed the chemistry's fixed voltage window
    simulated: bool = False  # True: made by `firmware_bridge lives`, not measured
    reasons: dict[str, str] = field(default_factory=dict)  # field -> why it is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something a person should know: raised, and later the same id with `cleared_t_ns`."""

    seq: int
    mono_ns: int
    t_ns: int | None = None
    id: str
    code: str
    severity: str  # SEVERITIES
    pack_id: str
    cell: int | None = None
    value: float | None = None
    threshold: float | None = None
    reference: float | None = None
    since_t_ns: int | None = None
    cleared_t_ns: int | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What happened to a model on a device."""

    seq: int
    mono_ns: int
    t_ns: int | None = None
    model_id: str
    counter: int
    step: str
    reason: str | None = None
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Records of `of_boot` that will not come, told by the device itself.

    Lost is what lies in [first_seq, last_seq], was not `stored` on the device and never reached the cloud; `ahead` > 0:
    the device cannot know its last number, and at most this many after the last one known to either side were lost.
    """

    seq: int
    mono_ns: int
    t_ns: int | None = None
    of_boot: int
    first_seq: int
    last_seq: int
    cause: str  # GAP_CAUSES
    stored: tuple[tuple[int, int], ...] = ()
    ahead: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One part of a window of raw input that a device kept around an alarm, or because a person asked for it.

    A file of it is its parts unpacked, in order. All parts of one capture say the same, but for part, file and data.
    """

    pack_id: str
    seq: int
    mono_ns: int
    t_ns: int | None = None  # when it was kept
    id: str
    part: int
    parts: int  # of all its files together
    file: str  # CAPTURE_FILES
    cause: str  # the codes of the alarms that rose, with blanks between; `trigger` = a person asked
    note: str | None = None  # what the person said
    begin_t_ns: int | None = None  # the window, UTC; None = the device did not know the time
    end_t_ns: int | None = None
    data: bytes  # one zstd frame


Single = Estimate | Event | Report | Gap | Session | Capture
"""A record that is no Sample: it travels one by one."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A range of records that the cloud refuses for good."""

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The cloud's answer to a Batch: what is durable, what is refused; anything else is to be sent again."""

    accepted: tuple[tuple[int, int], ...]
    rejected: tuple[Rejected, ...] = ()
    t_ns: int
    mode: str | None = None  # the uplink mode that the cloud would like, if any
