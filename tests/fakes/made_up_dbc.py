"""DBCs with everything that recorded ones do not have."""

from __future__ import annotations

import random


def made_up(seed: int) -> str:
    """A DBC with signals of all kinds, in frames of up to 64 bytes, some beyond 64 bits, with nested multiplexors."""
    chance = random.Random(seed)
    lines, floats, groups = ['VERSION ""', "BS_:", "BU_:"], [], []
    for number in range(6):
        length = chance.choice([1, 3, 8, 8, 8, 12, 32, 64])
        can_id = 0x100 + number if number % 2 else 0x80000000 | 0x1800_0000 + chance.getrandbits(20) * 8 + number
        lines.append(f"BO_ {can_id} M{number}: {length} X")
        bit, n, switch = 0, 0, ""
        while bit < 8 * length:
            bit += chance.choice([0, 0, 0, 1, 5])
            bits = chance.choice([1, 2, 4, 7, 8, 12, 16, 16, 31, 32, 33, 53, 57, 60, 63, 64, 64, 80])
            is_float = bits in (16, 32, 64) and chance.random() < 0.4
            if bit + bits > 8 * length:
                break
            order, sign = chance.choice("01"), chance.choice("+-")
            if order == "0" and chance.random() < 0.5:
                bit += -bit % 8
            if bit + bits > 8 * length:
                break
            start = bit if order == "1" else 8 * (bit // 8) + 7 - bit % 8
            scale = chance.choice(["1", "1", "0.1", "2", "-1", "0.00390625", "-0.5", "3.0", "1e-7", "1000000007"])
            offset = chance.choice(["0", "0", "-40", "0.5", "1e9", "-0.3"])
            mark = ""
            if n and switch and chance.random() < 0.7:
                ids = sorted(chance.sample(range(6), 2)) if chance.random() < 0.6 else [chance.randrange(300)] * 2
                mark = f" m{ids[0]}"
                groups.append(f"SG_MUL_VAL_ {can_id} S{n} {switch} {ids[0]}-{ids[1]};")
            if not is_float and 2 < bits < 17 and chance.random() < 0.3:
                mark += "M" if mark else " M"
                scale, offset = chance.choice([("1", "0"), ("1", "0"), ("0.5", "-1"), ("2", "1")])
                switch = f"S{n}" if not switch or chance.random() < 0.6 else switch
            lines.append(f' SG_ S{n}{mark} : {start}|{bits}@{order}{sign} ({scale},{offset}) [0|0] "" X')
            if is_float:
                floats.append(f"SIG_VALTYPE_ {can_id} S{n} : {1 if bits == 32 else 2};")
            bit, n = bit + bits, n + 1
    return "\n".join([*lines, *floats, *groups]) + "\n"
