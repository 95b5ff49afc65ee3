"""What is needed of every pack to choose and order some of them; few columns, so that thousands take little time."""

from __future__ import annotations

from cloud.db.connect import Connection
from cloud.db.queries_earlier import standing_alarms
from cloud.db.queries_packs import Row, ask


def overview(conn: Connection) -> list[Row]:
    """Each pack: names and tags, t of its newest sample (null = none), readings in the records' units, its band (0 good
    .. 2 critical, null = nothing known), the prediction that holds (rul, failure), its device's uplink mode (null = the
    setting's) and the alarms that stand."""
    alarms = {row["pack_id"]: row["alarms"] for row in standing_alarms(conn)}
    found = ask(
        conn,
        """
        SELECT n.pack_id, d.device, p.vehicle, p.fleet, p.chemistry, p.tags, n.t, state_name(n.state) AS state,
               n.soc_bms, n.soh, n.temp_max_c, n.spread_v, n.band, n.rul, n.failure, n.model_id, d.mode
        FROM pack_now n JOIN pack p USING (pack_key) LEFT JOIN device d USING (device_key)
        """,
    )
    for row in found:
        row["alarms"] = alarms.get(row["pack_id"], ())
    return found
