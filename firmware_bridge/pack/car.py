"""One simulated car: cells, cooling, BMS and itinerary, moved on together by ticks of 0.1 s. All by the seed."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from firmware_bridge.lives import cars
from firmware_bridge.lives.cars import Past
from firmware_bridge.pack import vehicle
from firmware_bridge.pack.bms import Bms
from firmware_bridge.pack.cells import Cells, Spread
from firmware_bridge.pack.cooling import Cooling
from firmware_bridge.pack.faults import Faults
from firmware_bridge.pack.itinerary import Demand, Itinerary
from firmware_bridge.pack.vehicle import Traction

TICK_S: Final = 0.1

DCDC_W: Final = 320.0
_ASLEEP_W: Final = 12.0
_CABIN_W_PER_K: Final = 110.0
CABIN_TARGET_C: Final = 21.0
_CABIN_J_PER_K: Final = 60_000.0
_HVAC_MAX_W: Final = 4000.0
CHARGER_W: Final = {"charge_ac": 10_600.0, "charge_dc": 120_000.0}
"""What a charge point gives on the DC side [W]."""


class Car:
    """State of one car. After `step` its parts hold the instant at the end of that tick."""

    def __init__(self, seed: int, number: int, past: Past | None = None) -> None:
        """Car `number` (from 0) of the fleet that `seed` draws, as its past left it; `past`: when that is known."""
        rng = np.random.default_rng([seed, number])
        self.rng = rng
        self.t_s = 0.0
        self.itinerary = Itinerary(rng, number)
        self.past = past or cars.past(seed, number)
        self._hour = float(rng.uniform(9.0, 17.0))
        spread = Spread.drawn(rng, self.itinerary.start_soc, self.past.capacity_ah, self.past.resistance)
        self.cells = Cells(spread, self.ambient_c + 6.0)
        self.cooling = Cooling(self.ambient_c + 4.0)
        self.faults = Faults()
        self.demand = Demand("park")
        self.traction = Traction(0.0, 0.0, 0.0, 0.0, 0.0)
        self.bms = Bms(rng, self.cells, self.past, self.faults)
        self.current_a = 0.0
        self.charger_a = 0.0
        self.hvac_w = self.aux_w = 0.0
        self.cabin_c = self.ambient_c
        self.odometer_km = self.bms.cycles * 320.0
        self.trip_km = self.trip_kwh = self.session_kwh = self.drive_s = 0.0
        self.motor_c = self.inverter_c = self.ambient_c + 15.0
        self.steering_deg = 0.0

    @property
    def ambient_c(self) -> float:
        """Air temperature [degC]: warmest at 15 h."""
        hour = self._hour + self.t_s / 3600
        return self.past.ambient_c + 4.0 * math.cos((hour - 15.0) / 24 * 2 * math.pi)

    def step(self) -> None:
        """Moves the whole car on by TICK_S."""
        self.t_s += TICK_S
        bms, cells = self.bms, self.cells
        self.demand = self.itinerary.step(TICK_S, bms.soc, bms.fault)
        bms.contactors.step(TICK_S, self.demand.awake and not bms.fault, bms.pack_v)
        cells.begin()
        self._climate()
        self.current_a = self._flow_a()
        cooling_w = self.cooling.step(TICK_S, cells.temp_c, self.ambient_c, self.demand.awake)
        cells.step(TICK_S, self.current_a, bms.balancing, cooling_w)
        bms.step(TICK_S, cells, self.current_a, self.ambient_c + self.faults.of("ambient_c"))
        self._wear()

    def _flow_a(self) -> float:
        """The pack's current: what road, charger and the rest ask for, within the limits; 0 with open contactors."""
        bms, demand = self.bms, self.demand
        closed = bms.contactors.main
        regen_w = bms.charge_limit_a * bms.pack_v + self.aux_w if closed else 0.0
        self.traction = vehicle.traction(demand.speed_mps, demand.accel_mps2, regen_w)
        self.charger_a = 0.0
        if not closed:
            return 0.0
        if demand.state in CHARGER_W:
            # The charger also feeds what runs in the car, and never gives more than the BMS lets in.
            let_in_a = bms.charge_limit_a + self.aux_w / bms.pack_v
            self.charger_a = min(CHARGER_W[demand.state] / bms.pack_v, let_in_a)
        asked_w = self.charger_a * bms.pack_v - self.aux_w - self.traction.battery_w
        return min(max(self.cells.current_a(asked_w), -bms.discharge_limit_a), bms.charge_limit_a)

    def _climate(self) -> None:
        """Cabin heating and cooling, and what all small consumers take together."""
        occupied = self.demand.state == "drive"
        needed_w = _CABIN_W_PER_K * (CABIN_TARGET_C - self.cabin_c) * 8 if occupied else 0.0
        self.hvac_w = min(abs(needed_w), _HVAC_MAX_W)
        heat_w = math.copysign(self.hvac_w * 1.6, needed_w) if needed_w else 0.0
        self.cabin_c += (heat_w - _CABIN_W_PER_K * (self.cabin_c - self.ambient_c)) * TICK_S / _CABIN_J_PER_K
        awake_w = DCDC_W + self.hvac_w + self.cooling.power_w
        self.aux_w = awake_w if self.demand.awake else _ASLEEP_W

    def _wear(self) -> None:
        """Counters and the slow temperatures of motor and inverter."""
        moved_km = self.demand.speed_mps * TICK_S / 1000
        self.odometer_km += moved_km
        driving, charging = self.demand.state == "drive", self.demand.state in CHARGER_W
        taken_kwh = -self.current_a * self.bms.pack_v * TICK_S / 3.6e6
        self.trip_km = self.trip_km + moved_km if driving else 0.0
        self.trip_kwh = self.trip_kwh + taken_kwh if driving else 0.0
        self.drive_s += TICK_S if driving else 0.0
        charged_kwh = self.charger_a * self.bms.pack_v * TICK_S / 3.6e6
        self.session_kwh = self.session_kwh + charged_kwh if charging else 0.0
        loss_w = abs(self.traction.battery_w) * 0.06
        self.motor_c += (loss_w * 0.6 - 45.0 * (self.motor_c - self.ambient_c - 5.0)) * TICK_S / 22_000.0
        self.inverter_c += (loss_w * 0.4 - 60.0 * (self.inverter_c - self.cooling.coolant_in_c)) * TICK_S / 6_000.0
        wheel = float(self.rng.standard_normal())
        calm = 1.0 / (1.0 + self.demand.speed_mps)
        self.steering_deg += (-0.4 * self.steering_deg + 60.0 * calm * wheel * (calm < 1.0)) * TICK_S
