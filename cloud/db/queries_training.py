"""What the database holds to learn from."""

from __future__ import annotations

from cloud.db.connect import Connection
from cloud.db.queries_packs import Row, ask


def sessions(conn: Connection) -> list[Row]:
    """Every Session once, by pack and time: pack_id, what features are made of, simulated."""
    return ask(
        conn,
        """
        SELECT pack_id, cycles, age_days, soh_bms, r_step_mohm, r_step_max_mohm, cell_dev_mv, temp_mean_c,
               temp_spread_c, hot_h, window_ah, duration_s, simulated
        FROM sessions
        ORDER BY pack_id, t_ns, mono_ns, seq
        """,
    )


def ends(conn: Connection) -> dict[str, float]:
    """Pack -> the cycles at which its life ended, as the last `end_of_life` Event of it says."""
    found = ask(
        conn,
        """
        SELECT DISTINCT ON (pack_id) pack_id, value FROM events
        WHERE code = 'end_of_life' AND value > 0
        ORDER BY pack_id, t_ns DESC NULLS LAST, seq DESC
        """,
    )
    return {row["pack_id"]: row["value"] for row in found}


def chemistries(conn: Connection) -> dict[str, str]:
    """Pack -> its chemistry, where one is known."""
    found = ask(conn, "SELECT pack_id, chemistry FROM pack WHERE chemistry IS NOT NULL")
    return {row["pack_id"]: row["chemistry"] for row in found}
