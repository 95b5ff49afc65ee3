"""Sessions of a pack that ages, with holes, drawn by seed."""

from __future__ import annotations

import random

from shared.records import Session


def life(count: int, seed: int = 0, holes: float = 0.2) -> list[Session]:
    """`count` Sessions of one pack, about 1.2 cycles and a few days each; a share `holes` of the values is None."""
    dice = random.Random(seed)
    cycles = days = 0.0
    sessions = []
    for k in range(count):
        cycles += dice.choice((dice.uniform(1.0, 1.5), dice.uniform(1.0, 1.5), 0.2))
        lasted = dice.uniform(0.3, 6.0)
        days += lasted
        values = {
            "cycles": round(cycles, 1),
            "throughput_ah": 360 * cycles,
            "age_days": days,
            "soh_bms": round(1 - cycles / 4000, 2),
            "moved_ah": 400.0,
            "r_step_mohm": 0.4 * (1 + cycles / 1000) * dice.gauss(1, 0.02),
            "r_step_max_mohm": 0.5 * (1 + cycles / 900) * dice.gauss(1, 0.02),
            "cell_dev_mv": abs(dice.gauss(6, 1)),
            "temp_mean_c": dice.gauss(25, 4),
            "temp_spread_c": dice.uniform(1, 4),
            "hot_h": dice.uniform(0, 3),
            "window_ah": 70 - cycles / 100 + dice.gauss(0, 0.3),
        }
        reasons = {name: "absent" for name in values if dice.random() < holes}
        known = {name: None if name in reasons else value for name, value in values.items()}
        sessions.append(
            Session(
                pack_id="P",
                seq=k,
                mono_ns=k,
                t_ns=k,
                duration_s=86_400 * lasted,
                simulated=True,
                reasons=reasons,
                **known,
            )
        )
    return sessions
