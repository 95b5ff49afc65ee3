from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Batch(_message.Message):
    __slots__ = ("schema", "device", "boot", "layouts", "blocks", "estimates", "events", "reports", "gaps", "sessions", "captures")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    BOOT_FIELD_NUMBER: _ClassVar[int]
    LAYOUTS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    ESTIMATES_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    REPORTS_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    CAPTURES_FIELD_NUMBER: _ClassVar[int]
    schema: int
    device: str
    boot: int
    layouts: _containers.RepeatedCompositeFieldContainer[Layout]
    blocks: _containers.RepeatedCompositeFieldContainer[Block]
    estimates: _containers.RepeatedCompositeFieldContainer[Estimate]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    reports: _containers.RepeatedCompositeFieldContainer[Report]
    gaps: _containers.RepeatedCompositeFieldContainer[Gap]
    sessions: _containers.RepeatedCompositeFieldContainer[Session]
    captures: _containers.RepeatedCompositeFieldContainer[Capture]
    def __init__(self, schema: _Optional[int] = ..., device: _Optional[str] = ..., boot: _Optional[int] = ..., layouts: _Optional[_Iterable[_Union[Layout, _Mapping]]] = ..., blocks: _Optional[_Iterable[_Union[Block, _Mapping]]] = ..., estimates: _Optional[_Iterable[_Union[Estimate, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ..., reports: _Optional[_Iterable[_Union[Report, _Mapping]]] = ..., gaps: _Optional[_Iterable[_Union[Gap, _Mapping]]] = ..., sessions: _Optional[_Iterable[_Union[Session, _Mapping]]] = ..., captures: _Optional[_Iterable[_Union[Capture, _Mapping]]] = ...) -> None: ...

class Layout(_message.Message):
    __slots__ = ("scalars", "steps", "cells", "temps", "balancing_words", "extra_names", "extra_steps", "extra_units")
    class ExtraUnitsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: str
        def __init__(self, key: _Optional[int] = ..., value: _Optional[str] = ...) -> None: ...
    SCALARS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    CELLS_FIELD_NUMBER: _ClassVar[int]
    TEMPS_FIELD_NUMBER: _ClassVar[int]
    BALANCING_WORDS_FIELD_NUMBER: _ClassVar[int]
    EXTRA_NAMES_FIELD_NUMBER: _ClassVar[int]
    EXTRA_STEPS_FIELD_NUMBER: _ClassVar[int]
    EXTRA_UNITS_FIELD_NUMBER: _ClassVar[int]
    scalars: bytes
    steps: _containers.RepeatedScalarFieldContainer[int]
    cells: int
    temps: int
    balancing_words: int
    extra_names: _containers.RepeatedScalarFieldContainer[str]
    extra_steps: _containers.RepeatedScalarFieldContainer[int]
    extra_units: _containers.ScalarMap[int, str]
    def __init__(self, scalars: _Optional[bytes] = ..., steps: _Optional[_Iterable[int]] = ..., cells: _Optional[int] = ..., temps: _Optional[int] = ..., balancing_words: _Optional[int] = ..., extra_names: _Optional[_Iterable[str]] = ..., extra_steps: _Optional[_Iterable[int]] = ..., extra_units: _Optional[_Mapping[int, str]] = ...) -> None: ...

class Block(_message.Message):
    __slots__ = ("pack_id", "layout", "rows", "first_seq", "seq_step", "first_mono", "mono_step", "mono_unit_ns", "t_offset_ns", "planes", "qualities", "alarms")
    PACK_ID_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    SEQ_STEP_FIELD_NUMBER: _ClassVar[int]
    FIRST_MONO_FIELD_NUMBER: _ClassVar[int]
    MONO_STEP_FIELD_NUMBER: _ClassVar[int]
    MONO_UNIT_NS_FIELD_NUMBER: _ClassVar[int]
    T_OFFSET_NS_FIELD_NUMBER: _ClassVar[int]
    PLANES_FIELD_NUMBER: _ClassVar[int]
    QUALITIES_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    pack_id: str
    layout: int
    rows: int
    first_seq: int
    seq_step: int
    first_mono: int
    mono_step: int
    mono_unit_ns: int
    t_offset_ns: int
    planes: bytes
    qualities: _containers.RepeatedCompositeFieldContainer[Quality]
    alarms: _containers.RepeatedCompositeFieldContainer[Alarms]
    def __init__(self, pack_id: _Optional[str] = ..., layout: _Optional[int] = ..., rows: _Optional[int] = ..., first_seq: _Optional[int] = ..., seq_step: _Optional[int] = ..., first_mono: _Optional[int] = ..., mono_step: _Optional[int] = ..., mono_unit_ns: _Optional[int] = ..., t_offset_ns: _Optional[int] = ..., planes: _Optional[bytes] = ..., qualities: _Optional[_Iterable[_Union[Quality, _Mapping]]] = ..., alarms: _Optional[_Iterable[_Union[Alarms, _Mapping]]] = ...) -> None: ...

class Quality(_message.Message):
    __slots__ = ("reasons",)
    class ReasonsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    REASONS_FIELD_NUMBER: _ClassVar[int]
    reasons: _containers.ScalarMap[str, int]
    def __init__(self, reasons: _Optional[_Mapping[str, int]] = ...) -> None: ...

class Alarms(_message.Message):
    __slots__ = ("codes",)
    CODES_FIELD_NUMBER: _ClassVar[int]
    codes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, codes: _Optional[_Iterable[str]] = ...) -> None: ...

class Head(_message.Message):
    __slots__ = ("seq", "mono_ns", "t_ns")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    MONO_NS_FIELD_NUMBER: _ClassVar[int]
    T_NS_FIELD_NUMBER: _ClassVar[int]
    seq: int
    mono_ns: int
    t_ns: int
    def __init__(self, seq: _Optional[int] = ..., mono_ns: _Optional[int] = ..., t_ns: _Optional[int] = ...) -> None: ...

class Estimate(_message.Message):
    __slots__ = ("head", "pack_id", "soc", "soc_lo", "soc_hi", "soh_capacity", "soh_capacity_lo", "soh_capacity_hi", "soh_resistance", "power_limit_charge_2s_w", "power_limit_charge_10s_w", "power_limit_discharge_2s_w", "power_limit_discharge_10s_w", "usable_kwh", "rul_cycles", "rul_cycles_lo", "rul_cycles_hi", "p_eol_100", "failure_probability", "in_domain", "model_id", "model_sha256", "reason", "r0_mohm", "cell_soc")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PACK_ID_FIELD_NUMBER: _ClassVar[int]
    SOC_FIELD_NUMBER: _ClassVar[int]
    SOC_LO_FIELD_NUMBER: _ClassVar[int]
    SOC_HI_FIELD_NUMBER: _ClassVar[int]
    SOH_CAPACITY_FIELD_NUMBER: _ClassVar[int]
    SOH_CAPACITY_LO_FIELD_NUMBER: _ClassVar[int]
    SOH_CAPACITY_HI_FIELD_NUMBER: _ClassVar[int]
    SOH_RESISTANCE_FIELD_NUMBER: _ClassVar[int]
    POWER_LIMIT_CHARGE_2S_W_FIELD_NUMBER: _ClassVar[int]
    POWER_LIMIT_CHARGE_10S_W_FIELD_NUMBER: _ClassVar[int]
    POWER_LIMIT_DISCHARGE_2S_W_FIELD_NUMBER: _ClassVar[int]
    POWER_LIMIT_DISCHARGE_10S_W_FIELD_NUMBER: _ClassVar[int]
    USABLE_KWH_FIELD_NUMBER: _ClassVar[int]
    RUL_CYCLES_FIELD_NUMBER: _ClassVar[int]
    RUL_CYCLES_LO_FIELD_NUMBER: _ClassVar[int]
    RUL_CYCLES_HI_FIELD_NUMBER: _ClassVar[int]
    P_EOL_100_FIELD_NUMBER: _ClassVar[int]
    FAILURE_PROBABILITY_FIELD_NUMBER: _ClassVar[int]
    IN_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_SHA256_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    R0_MOHM_FIELD_NUMBER: _ClassVar[int]
    CELL_SOC_FIELD_NUMBER: _ClassVar[int]
    head: Head
    pack_id: str
    soc: float
    soc_lo: float
    soc_hi: float
    soh_capacity: float
    soh_capacity_lo: float
    soh_capacity_hi: float
    soh_resistance: float
    power_limit_charge_2s_w: float
    power_limit_charge_10s_w: float
    power_limit_discharge_2s_w: float
    power_limit_discharge_10s_w: float
    usable_kwh: float
    rul_cycles: float
    rul_cycles_lo: float
    rul_cycles_hi: float
    p_eol_100: float
    failure_probability: float
    in_domain: bool
    model_id: str
    model_sha256: str
    reason: str
    r0_mohm: _containers.RepeatedScalarFieldContainer[float]
    cell_soc: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, head: _Optional[_Union[Head, _Mapping]] = ..., pack_id: _Optional[str] = ..., soc: _Optional[float] = ..., soc_lo: _Optional[float] = ..., soc_hi: _Optional[float] = ..., soh_capacity: _Optional[float] = ..., soh_capacity_lo: _Optional[float] = ..., soh_capacity_hi: _Optional[float] = ..., soh_resistance: _Optional[float] = ..., power_limit_charge_2s_w: _Optional[float] = ..., power_limit_charge_10s_w: _Optional[float] = ..., power_limit_discharge_2s_w: _Optional[float] = ..., power_limit_discharge_10s_w: _Optional[float] = ..., usable_kwh: _Optional[float] = ..., rul_cycles: _Optional[float] = ..., rul_cycles_lo: _Optional[float] = ..., rul_cycles_hi: _Optional[float] = ..., p_eol_100: _Optional[float] = ..., failure_probability: _Optional[float] = ..., in_domain: _Optional[bool] = ..., model_id: _Optional[str] = ..., model_sha256: _Optional[str] = ..., reason: _Optional[str] = ..., r0_mohm: _Optional[_Iterable[float]] = ..., cell_soc: _Optional[_Iterable[float]] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("head", "id", "code", "severity", "pack_id", "cell", "value", "threshold", "reference", "since_t_ns", "cleared_t_ns", "confidence")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    SEVERITY_FIELD_NUMBER: _ClassVar[int]
    PACK_ID_FIELD_NUMBER: _ClassVar[int]
    CELL_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    SINCE_T_NS_FIELD_NUMBER: _ClassVar[int]
    CLEARED_T_NS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    head: Head
    id: str
    code: str
    severity: str
    pack_id: str
    cell: int
    value: float
    threshold: float
    reference: float
    since_t_ns: int
    cleared_t_ns: int
    confidence: float
    def __init__(self, head: _Optional[_Union[Head, _Mapping]] = ..., id: _Optional[str] = ..., code: _Optional[str] = ..., severity: _Optional[str] = ..., pack_id: _Optional[str] = ..., cell: _Optional[int] = ..., value: _Optional[float] = ..., threshold: _Optional[float] = ..., reference: _Optional[float] = ..., since_t_ns: _Optional[int] = ..., cleared_t_ns: _Optional[int] = ..., confidence: _Optional[float] = ...) -> None: ...

class Session(_message.Message):
    __slots__ = ("head", "pack_id", "duration_s", "cycles", "throughput_ah", "soh_bms", "age_days", "moved_ah", "r_step_mohm", "r_step_max_mohm", "cell_dev_mv", "temp_mean_c", "temp_spread_c", "hot_h", "window_ah", "simulated", "reasons")
    class ReasonsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PACK_ID_FIELD_NUMBER: _ClassVar[int]
    DURATION_S_FIELD_NUMBER: _ClassVar[int]
    CYCLES_FIELD_NUMBER: _ClassVar[int]
    THROUGHPUT_AH_FIELD_NUMBER: _ClassVar[int]
    SOH_BMS_FIELD_NUMBER: _ClassVar[int]
    AGE_DAYS_FIELD_NUMBER: _ClassVar[int]
    MOVED_AH_FIELD_NUMBER: _ClassVar[int]
    R_STEP_MOHM_FIELD_NUMBER: _ClassVar[int]
    R_STEP_MAX_MOHM_FIELD_NUMBER: _ClassVar[int]
    CELL_DEV_MV_FIELD_NUMBER: _ClassVar[int]
    TEMP_MEAN_C_FIELD_NUMBER: _ClassVar[int]
    TEMP_SPREAD_C_FIELD_NUMBER: _ClassVar[int]
    HOT_H_FIELD_NUMBER: _ClassVar[int]
    WINDOW_AH_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    head: Head
    pack_id: str
    duration_s: float
    cycles: float
    throughput_ah: float
    soh_bms: float
    age_days: float
    moved_ah: float
    r_step_mohm: float
    r_step_max_mohm: float
    cell_dev_mv: float
    temp_mean_c: float
    temp_spread_c: float
    hot_h: float
    window_ah: float
    simulated: bool
    reasons: _containers.ScalarMap[str, str]
    def __init__(self, head: _Optional[_Union[Head, _Mapping]] = ..., pack_id: _Optional[str] = ..., duration_s: _Optional[float] = ..., cycles: _Optional[float] = ..., throughput_ah: _Optional[float] = ..., soh_bms: _Optional[float] = ..., age_days: _Optional[float] = ..., moved_ah: _Optional[float] = ..., r_step_mohm: _Optional[float] = ..., r_step_max_mohm: _Optional[float] = ..., cell_dev_mv: _Optional[float] = ..., temp_mean_c: _Optional[float] = ..., temp_spread_c: _Optional[float] = ..., hot_h: _Optional[float] = ..., window_ah: _Optional[float] = ..., simulated: _Optional[bool] = ..., reasons: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("head", "model_id", "counter", "step", "reason", "numbers")
    class NumbersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    HEAD_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    head: Head
    model_id: str
    counter: int
    step: str
    reason: str
    numbers: _containers.ScalarMap[str, float]
    def __init__(self, head: _Optional[_Union[Head, _Mapping]] = ..., model_id: _Optional[str] = ..., counter: _Optional[int] = ..., step: _Optional[str] = ..., reason: _Optional[str] = ..., numbers: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Gap(_message.Message):
    __slots__ = ("head", "of_boot", "first_seq", "last_seq", "cause", "stored", "ahead")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    OF_BOOT_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQ_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQ_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    head: Head
    of_boot: int
    first_seq: int
    last_seq: int
    cause: str
    stored: _containers.RepeatedCompositeFieldContainer[Range]
    ahead: int
    def __init__(self, head: _Optional[_Union[Head, _Mapping]] = ..., of_boot: _Optional[int] = ..., first_seq: _Optional[int] = ..., last_seq: _Optional[int] = ..., cause: _Optional[str] = ..., stored: _Optional[_Iterable[_Union[Range, _Mapping]]] = ..., ahead: _Optional[int] = ...) -> None: ...

class Capture(_message.Message):
    __slots__ = ("head", "pack_id", "id", "part", "parts", "file", "cause", "note", "begin_t_ns", "end_t_ns", "data")
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PACK_ID_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    BEGIN_T_NS_FIELD_NUMBER: _ClassVar[int]
    END_T_NS_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    head: Head
    pack_id: str
    id: str
    part: int
    parts: int
    file: str
    cause: str
    note: str
    begin_t_ns: int
    end_t_ns: int
    data: bytes
    def __init__(self, head: _Optional[_Union[Head, _Mapping]] = ..., pack_id: _Optional[str] = ..., id: _Optional[str] = ..., part: _Optional[int] = ..., parts: _Optional[int] = ..., file: _Optional[str] = ..., cause: _Optional[str] = ..., note: _Optional[str] = ..., begin_t_ns: _Optional[int] = ..., end_t_ns: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("first", "last")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class Rejected(_message.Message):
    __slots__ = ("first", "last", "reason")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    first: int
    last: int
    reason: str
    def __init__(self, first: _Optional[int] = ..., last: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("accepted", "rejected", "t_ns", "mode")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    T_NS_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    accepted: _containers.RepeatedCompositeFieldContainer[Range]
    rejected: _containers.RepeatedCompositeFieldContainer[Rejected]
    t_ns: int
    mode: str
    def __init__(self, accepted: _Optional[_Iterable[_Union[Range, _Mapping]]] = ..., rejected: _Optional[_Iterable[_Union[Rejected, _Mapping]]] = ..., t_ns: _Optional[int] = ..., mode: _Optional[str] = ...) -> None: ...
