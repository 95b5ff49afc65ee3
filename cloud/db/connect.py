"""Connections to PostgreSQL that understand numpy arrays."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
import psycopg
from psycopg.abc import AdaptContext
from psycopg.adapt import Dumper, PyFormat
from psycopg.pq import Format

from cloud.config import Database
from shared.errors import PacktwinError

Connection = psycopg.Connection[tuple[Any, ...]]


class DatabaseAway(PacktwinError):
    """The database cannot be reached or does not let us in; trying again later may help."""


_ARRAYS: Final = {  # dtype kind and size -> (oid of the array, oid of its elements, big-endian dtype)
    "i8": (1016, 20, ">i8"),
    "i4": (1007, 23, ">i4"),
    "f8": (1022, 701, ">f8"),
}


class _ArrayDumper(Dumper):
    """A one-dimensional int32, int64 or float64 array as int4[], int8[] or float8[] in binary, without a loop."""

    format = Format.BINARY
    kind = ""

    def get_key(self, obj: Any, format: PyFormat) -> tuple[type, ...]:
        return (self.cls, obj.dtype.type)

    def upgrade(self, obj: Any, format: PyFormat) -> Dumper:
        dumper = _ArrayDumper(self.cls, None)
        dumper.kind = f"{obj.dtype.kind}{obj.dtype.itemsize}"
        dumper.oid = _ARRAYS[dumper.kind][0]
        return dumper

    def dump(self, obj: Any) -> bytes:
        _, element_oid, wide = _ARRAYS[self.kind]
        if not obj.size:
            return struct.pack(">iii", 0, 0, element_oid)
        rows = np.empty(obj.size, np.dtype([("length", ">i4"), ("value", wide)]))
        rows["length"] = obj.dtype.itemsize
        rows["value"] = obj
        return struct.pack(">iiiii", 1, 0, element_oid, obj.size, 1) + rows.tobytes()


def connect(settings: Database, application: str = "packtwin", *, autocommit: bool = True) -> Connection:
    """A connection (autocommit: use `with conn.transaction()`); DatabaseAway, one sentence, if there is none."""
    try:
        conn: Connection = psycopg.connect(
            host=settings.host,
            port=settings.port,
            dbname=settings.name,
            user=settings.user,
            password=settings.password,
            application_name=application,
            connect_timeout=5,
            autocommit=autocommit,
            # A jit run costs more than any of our queries; UTC keeps every text time the same everywhere.
            options="-c jit=off -c timezone=UTC -c client_min_messages=warning",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
        )
    except psycopg.Error as error:
        reason = " ".join(str(error).split()).removeprefix("connection failed: ")
        where = f"{settings.name} at {settings.host}:{settings.port}"
        raise DatabaseAway(f"no database {where} for user {settings.user}: {reason}; check DB_* or start it") from error
    register(conn)
    return conn


def register(context: AdaptContext) -> None:
    """Lets numpy arrays be parameters on a connection or cursor."""
    if context.adapters is not None:
        context.adapters.register_dumper(np.ndarray, _ArrayDumper)
