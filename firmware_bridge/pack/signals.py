"""What a car says on its bus: each signal of packtwin.dbc by name, in the DBC's units."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from firmware_bridge.pack import cells
from firmware_bridge.pack.bms import CHARGE_TO_V
from firmware_bridge.pack.car import CABIN_TARGET_C, DCDC_W, Car
from firmware_bridge.pack.cells import TEMPS, Floats
from shared.fields import ALARM_CODES, STATES

_OVERLOAD: Final = 1.15  # what the pack can do for 2 s against 10 s
_TORQUE_MAX_NM: Final = 310.0
_ACTIVE_W: Final = 50.0
_USUAL_KWH_PER_100KM: Final = 16.5
_TRIP_SAYS_KM: Final = 0.5  # a shorter trip says nothing of consumption


def signals(car: Car) -> dict[str, float]:
    """The scalar signals at the end of the car's last tick, by signal name; always the same names in the same order."""
    return {**_battery(car), **_measured(car), **_vehicle(car), **_charging(car), **_climate(car), **_counters(car)}


def values(car: Car) -> Floats:
    """All signals of the car in the order of `NAMES`: float64[len(NAMES)]."""
    bms = car.bms
    many = (bms.cell_v, bms.temp_c, bms.balancing, bms.alarms.alarms, bms.alarms.warnings)
    return np.concatenate([np.fromiter(signals(car).values(), np.float64), *many])


def _battery(car: Car) -> dict[str, float]:
    bms, faults, switch = car.bms, car.faults, car.bms.contactors
    soc = bms.soc + faults.of("soc_bms")
    charge_limit_a = bms.charge_limit_a + faults.of("charge_limit_a")
    discharge_limit_a = bms.discharge_limit_a + faults.of("discharge_limit_a")
    charge_kw, discharge_kw = charge_limit_a * bms.pack_v / 1000, discharge_limit_a * bms.pack_v / 1000
    mode = 4 if bms.fault else 3 if switch.main else 2 if switch.precharge else 1 if car.demand.awake else 0
    insulation_kohm = bms.insulation_kohm
    return {
        "SoC": 100 * soc,
        "SoH": 100 * (bms.soh + faults.of("soh_bms")),
        "SocDisplay": min(max(100 * (soc - 0.03) / 0.94, 0.0), 100.0),
        "ChargeLimit": charge_limit_a,
        "DischargeLimit": discharge_limit_a,
        "ChargeVoltageLimit": CHARGE_TO_V * cells.SERIES,
        "ChargePower10s": charge_kw,
        "DischargePower10s": discharge_kw,
        "ChargePower2s": charge_kw * _OVERLOAD,
        "DischargePower2s": discharge_kw * _OVERLOAD,
        "VehicleState": STATES.index(car.demand.state),
        "BmsMode": mode,
        "MainPositive": switch.main,
        "MainNegative": switch.negative,
        "Precharge": switch.precharge,
        "ChargeEnable": charge_limit_a > 0 and not bms.fault,
        "DischargeEnable": discharge_limit_a > 0 and not bms.fault,
        "Interlock": 1,
        "LinkVoltage": switch.link_v,
        "PrechargeCurrent": switch.precharge_a,
        "CoilVoltage": 12.0 if switch.main else 0.0,
        "Insulation": insulation_kohm,
        "InsulationPositive": 1.9 * insulation_kohm,
        "InsulationNegative": 2.1 * insulation_kohm,
        "InsulationState": 3 if insulation_kohm < 36 else 2 if insulation_kohm < 180 else 1,
        "AlarmCount": int(bms.alarms.alarms.sum()),
        "WarningCount": int(bms.alarms.warnings.sum()),
        "SeriesCells": cells.SERIES,
        "ParallelCells": cells.PARALLEL,
        "NominalCapacity": cells.NOMINAL_AH,
        "Chemistry": 0,
        "BmsVersion": 1.0,
    }


def _measured(car: Car) -> dict[str, float]:
    bms = car.bms
    return {
        "PackVoltage": bms.pack_v,
        "PackCurrent": bms.current_a,
        "PackPower": bms.pack_v * bms.current_a / 1000,
        "CurrentRaw": bms.current_a,
        "ShuntTemp": bms.temp_max_c + 2.0,
        "SensorStatus": 1,
        "CellVoltageMin": bms.cell_min_v,
        "CellVoltageMax": bms.cell_max_v,
        "CellMinIndex": int(bms.cell_v.argmin()) + 1,
        "CellMaxIndex": int(bms.cell_v.argmax()) + 1,
        "TempMin": bms.temp_min_c,
        "TempMax": bms.temp_max_c,
        "TempMinIndex": int(bms.temp_c.argmin()) + 1,
        "TempMaxIndex": int(bms.temp_c.argmax()) + 1,
    }


def _vehicle(car: Car) -> dict[str, float]:
    demand, pull, bms = car.demand, car.traction, car.bms
    speed_kmh = max(3.6 * demand.speed_mps + car.faults.of("speed_kmh"), 0.0)
    driving, braking_w = demand.state == "drive", max(-pull.wheel_w, 0.0)
    friction_w = max(braking_w - pull.regen_w, 0.0)
    available_kw = bms.discharge_limit_a * bms.pack_v / 1000
    turn = math.radians(car.steering_deg / 15) * demand.speed_mps / 2.7  # rad/s, single-track with 2.7 m wheelbase
    motor_w = pull.motor_nm * pull.motor_rpm * 2 * math.pi / 60
    phase_a = abs(pull.motor_nm) / 0.9 + (4.0 if driving else 0.0)
    return {
        "VehicleSpeed": speed_kmh,
        "Acceleration": demand.accel_mps2,
        "SpeedValid": 1,
        "Standstill": speed_kmh < 0.1,
        "AcceleratorPos": min(max(pull.battery_w / 1200, 0.0), 100.0),
        "BrakePos": min(friction_w / 600, 100.0),
        "Gear": 3 if driving else 0,
        "BrakeLight": braking_w > 4000,
        "PowerRequest": pull.battery_w / 1000,
        "PowerAvailable": available_kw,
        "RegenAvailable": bms.charge_limit_a * bms.pack_v / 1000,
        "MotorTorque": pull.motor_nm,
        "TorqueRequest": pull.motor_nm,
        "TorqueLimit": _TORQUE_MAX_NM,
        "MotorSpeed": pull.motor_rpm,
        "MotorPower": motor_w / 1000,
        "MotorState": 2 if pull.motor_nm > 0 else 3 if pull.motor_nm < 0 else 1 if driving else 0,
        "InverterVoltage": bms.contactors.link_v,
        "InverterCurrent": pull.battery_w / bms.pack_v,
        "PhaseCurrent": phase_a,
        "CurrentD": -0.3 * phase_a,
        "CurrentQ": math.copysign(0.95 * phase_a, pull.motor_nm),
        **{f"WheelSpeed{wheel}": speed_kmh * (1 + side * turn * 0.02) for wheel, side in _WHEELS.items()},
        "BrakePressure": min(friction_w / 900, 180.0),
        "RegenTorque": min(pull.motor_nm, 0.0),
        "AbsActive": 0,
        "LongAccel": demand.accel_mps2,
        "LatAccel": turn * demand.speed_mps,
        "YawRate": math.degrees(turn),
        "SteerAngle": car.steering_deg,
        "SteerRate": -0.4 * car.steering_deg,
        "SteerTorque": car.steering_deg / 30,
        "StatorTemp": car.motor_c,
        "RotorTemp": car.motor_c + 4.0,
        "InverterTemp": car.inverter_c,
    }


_WHEELS: Final = {"FL": -1, "FR": 1, "RL": -1, "RR": 1}


def _charging(car: Car) -> dict[str, float]:
    state, bms = car.demand.state, car.bms
    ac, dc, awake = state == "charge_ac", state == "charge_dc", car.demand.awake
    charger_w = car.charger_a * bms.pack_v
    return {
        "AcVoltage": 231.0 if ac else 0.0,
        "AcCurrent": charger_w / (3 * 231.0 * 0.94) if ac else 0.0,
        "ObcCurrent": car.charger_a if ac else 0.0,
        "ObcState": 2 if ac else 0,
        "ObcTemp": car.ambient_c + (25.0 if ac else 5.0),
        "EvseVoltage": bms.pack_v + 1.0 if dc else 0.0,
        "EvseCurrent": car.charger_a if dc else 0.0,
        "EvseState": 3 if ac or dc else 0,
        "PlugState": 1 if ac else 2 if dc else 0,
        "SessionEnergy": car.session_kwh,
        "DcdcInputCurrent": DCDC_W / bms.pack_v if awake else 0.0,
        "DcdcOutputVoltage": 13.8 if awake else 12.6,
        "DcdcOutputCurrent": 0.93 * DCDC_W / 13.8 if awake else 0.0,
        "DcdcTemp": car.cooling.coolant_in_c + 12.0,
        "DcdcOn": awake,
    }


def _climate(car: Car) -> dict[str, float]:
    loop, faults = car.cooling, car.faults
    heating = car.cabin_c < CABIN_TARGET_C
    return {
        "AuxPower": car.aux_w,
        "HvacPower": car.hvac_w,
        "ThermalPower": loop.power_w,
        "CoolantIn": loop.coolant_in_c + faults.of("coolant_in_c"),
        "CoolantOut": loop.coolant_out_c + faults.of("coolant_out_c"),
        "CoolantFlow": loop.flow_l_per_min,
        "PumpSpeed": 70.0 * loop.pump,
        "HeaterPower": loop.heater_w,
        "ChillerPower": loop.chiller_w,
        "FanDuty": 100.0 * loop.fan,
        "CabinTemp": car.cabin_c,
        "CabinTarget": CABIN_TARGET_C,
        "CompressorSpeed": 0.0 if heating else 1.5 * car.hvac_w,
        "PtcPower": car.hvac_w if heating and car.hvac_w > _ACTIVE_W else 0.0,
        "AmbientTemp": car.ambient_c + faults.of("ambient_c"),
        "AirPressure": 1013.0,
    }


def _counters(car: Car) -> dict[str, float]:
    bms, faults = car.bms, car.faults
    warm_kpa = 240.0 + 0.4 * (car.ambient_c - 20.0)
    return {
        "ThroughputAh": bms.throughput_ah + faults.of("throughput_ah"),
        "Cycles": bms.cycles + faults.of("cycles"),
        "EnergyThroughput": bms.energy_kwh + faults.of("energy_kwh"),
        "EnergyRemaining": bms.usable_kwh,
        "Odometer": car.odometer_km + faults.of("odometer_km"),
        "TripDistance": car.trip_km,
        "Consumption": 100 * car.trip_kwh / car.trip_km if car.trip_km > _TRIP_SAYS_KM else _USUAL_KWH_PER_100KM,
        "Range": 100 * bms.usable_kwh / _USUAL_KWH_PER_100KM,
        "OperatingTime": car.t_s,
        "DriveTime": car.drive_s,
        "TyrePressureFL": warm_kpa,
        "TyrePressureFR": warm_kpa + 2.0,
        "TyrePressureRL": warm_kpa + 9.0,
        "TyrePressureRR": warm_kpa + 8.0,
    }


def _camel(code: str) -> str:
    return "".join(part.title() for part in code.split("_"))


NAMES: Final = (
    *signals(Car(seed=0, number=0)),
    *(f"Cell{n:03d}_V" for n in range(1, cells.SERIES + 1)),
    *(f"Temp{n:02d}" for n in range(1, TEMPS + 1)),
    *(f"Balance{n:03d}" for n in range(1, cells.SERIES + 1)),
    *(f"Alarm{_camel(code)}" for code in ALARM_CODES),
    *(f"Warn{_camel(code)}" for code in ALARM_CODES),
)
"""The names of `values`."""
