"""The database: connections, migrations and every SQL statement of the cloud, one function per question."""

from cloud.db.connect import Connection, connect
from cloud.db.migrate import migrate, migrations_pending

__all__ = ["Connection", "connect", "migrate", "migrations_pending"]
