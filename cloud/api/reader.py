"""Read-only database connections for the API: few, reused, and honest when the database is away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, TypeVar

import psycopg
from psycopg import errors

from cloud.api.answers import ApiProblem
from cloud.db import Connection
from cloud.db.connect import DatabaseAway

P = ParamSpec("P")
T = TypeVar("T")

CONNECTIONS: Final = 8
_AWAY: Final = "The database is down; this works again as soon as it is back."
_BUSY: Final = "The database is busy; try again in a moment."
_UNMIGRATED: Final = "The database has not all of packtwin's tables; run `python -m cloud migrate`."
_TOO_LONG: Final = "The question takes too long; ask for a shorter time or a longer step."
_WAIT_S: Final = 5.0


class Reader:
    """Asks the database questions from any thread, at most CONNECTIONS at a time."""

    def __init__(self, connect: Callable[[], Connection], connections: int = CONNECTIONS) -> None:
        self._connect = connect
        self._slots = threading.BoundedSemaphore(connections)
        self._idle: list[Connection] = []
        self._closed = False

    def ask(self, question: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """question(connection, *args); ApiProblem 503 with its reason when the database cannot answer."""
        if not self._slots.acquire(timeout=_WAIT_S):
            raise ApiProblem(503, _BUSY)
        try:
            return self._ask(lambda connection: question(connection, *args, **kwargs))
        except errors.QueryCanceled as error:
            raise ApiProblem(503, _TOO_LONG) from error
        except (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction) as error:
            raise ApiProblem(503, _UNMIGRATED) from error
        except psycopg.DataError as error:
            raise ApiProblem(422, f"The request has a value that the database cannot take: {error}.") from error
        except (psycopg.OperationalError, DatabaseAway) as error:
            raise ApiProblem(503, _AWAY) from error
        finally:
            self._slots.release()

    def close(self) -> None:
        """Closes what is idle; connections in use close when they come back."""
        self._closed = True
        self._drop_idle()

    def _ask(self, question: Callable[[Connection], T]) -> T:
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._use(self._connect(), question)
        try:
            return self._use(connection, question)
        except psycopg.OperationalError:
            if not connection.closed:
                raise
        # The server restarted since: all idle connections are dead alike, and the question only reads.
        self._drop_idle()
        return self._use(self._connect(), question)

    def _use(self, connection: Connection, question: Callable[[Connection], T]) -> T:
        try:
            return question(connection)
        finally:
            if connection.closed or self._closed:
                connection.close()
            else:
                self._idle.append(connection)

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()
