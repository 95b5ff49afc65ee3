"""`make run` and its companions: everything of packtwin on this machine, without Docker and without root.

usage: run.py run | status | stop | logs [LINES] | psql [ARGUMENT ...] | with SERVICE[,SERVICE] -- COMMAND ...
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import board
import door
import full
import postgres
import stack
import state
import tail
from processes import Identity, identify, is_alive
from services import Service
from settings import Settings, read_settings
from supervisor import Stopped, Supervisor, end_leftovers

from shared.errors import ConfigError, PacktwinError

STOP_S = 60.0


def run(paths: stack.Paths) -> int:
    """Starts the whole stack and keeps it until Ctrl-C."""
    settings = read_settings(os.environ)
    with alone(paths), foreground():
        at = stack.login(settings, paths)
        more = full.plan(settings, at, paths, say) if settings.full else full.nothing(settings)
        settings = more.settings
        for service in more.missing:
            say(f"{service.name} is left out: {service.missing}")
        # The upper ones first: a busy port is told before anything is made for the database.
        api, agent = stack.api(settings, at), stack.agent(settings, at, paths)
        services = [*more.servers, api, *more.ours, stack.cars(settings, at, paths), agent, *more.watchers]
        with running([stack.database(settings, at, paths), *services], settings, at, paths, say) as supervisor:
            found = _found(paths)
            if settings.full and found is not None:
                say("\n" + board.show(found, at)[0])
            say(f"\n  open {stack.page_url(settings)}    (Ctrl-C or 'make stop' ends it)\n")
            for sentence in door.of(settings.cloud).sentences():
                say(f"  {sentence}")
            supervisor.keep()
    return 0


@contextlib.contextmanager
def alone(paths: stack.Paths) -> Iterator[None]:
    """Holds the checkout's lock, with what an earlier, killed run left behind ended. ConfigError: one runs already."""
    paths.make()
    with state.Lock(paths.lock) as lock:
        if not lock.acquire():
            found = state.read(paths.state)
            where = f", {found.api_url}" if found else ""
            raise ConfigError(f"packtwin already runs here{where}; 'make stop' ends it")
        end_leftovers(paths.state)
        yield


@contextlib.contextmanager
def running(
    services: Sequence[Service],
    settings: Settings,
    at: postgres.Login,
    paths: stack.Paths,
    tell: Callable[[str], None],
) -> Iterator[Supervisor]:
    """Runs the services while the body runs; all are down when this ends, however it ends. Stopped: a signal came."""
    me = identify(os.getpid())
    assert me is not None, "this process runs"
    told = at.environment()
    del told["DB_PASSWORD"]

    def publish(rows: Sequence[state.Running]) -> None:
        found = state.State(
            supervisor=me,
            api_url=stack.api_url(settings),
            database=told,
            services=tuple(rows),
            environment=full.for_commands(settings),
        )
        state.write(paths.state, found)

    supervisor = Supervisor(services, paths.logs, tell, publish)
    supervisor.on_signals()
    try:
        supervisor.start()
        yield supervisor
    finally:
        supervisor.stop()
        paths.state.unlink(missing_ok=True)
        tell("packtwin has stopped")


@contextlib.contextmanager
def foreground() -> Iterator[None]:
    """Takes the terminal from `make` meanwhile: Ctrl-C then reaches us alone, and an orderly end is exit code 0."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError:
        terminal = -1
    before = os.getpgrp()
    if terminal < 0 or os.tcgetpgrp(terminal) != before or before == os.getpid():
        yield
        return
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # else handing the terminal back would stop us
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # make could not be woken again
    os.setpgid(0, 0)
    os.tcsetpgrp(terminal, os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(terminal, before)


def status(paths: stack.Paths) -> int:
    """Prints what runs, each service asked now. 0 = all well, 1 = not running or something is down."""
    found = _found(paths)
    if found is None:
        print("packtwin does not run here; 'make run' starts it")
        return 1
    text, well = board.show(found, _login(paths, found))
    print(text)
    return 0 if well else 1


def stop(paths: stack.Paths) -> int:
    """Ends a running stack and waits until it is down; ends what a killed one left."""
    found = _found(paths)
    if found is None:
        end_leftovers(paths.state)
        print("packtwin does not run here")
        return 0
    os.kill(found.supervisor.pid, signal.SIGTERM)
    _await_end(found.supervisor)
    print("packtwin has stopped")
    return 0


def _await_end(process: Identity) -> None:
    deadline = time.monotonic() + STOP_S
    while is_alive(process):
        if time.monotonic() > deadline:
            raise PacktwinError(
                f"packtwin (PID {process.pid}) does not end; kill -9 {process.pid} ends it, nothing is lost"
            )
        time.sleep(0.05)


def logs(paths: stack.Paths, lines: str = "20") -> int:
    """Prints the last lines of every log, then, on a terminal, what is added to them until Ctrl-C."""
    if not lines.isdigit():
        raise ConfigError(f"logs: {lines!r} is not a number of lines; try make logs N=50")
    if not any(paths.logs.glob("*.log")):
        print("packtwin has written no logs here; 'make run' starts it")
        return 1
    with contextlib.suppress(KeyboardInterrupt):
        tail.follow(paths.logs, int(lines), for_ever=sys.stdout.isatty())
    return 0


def psql(paths: stack.Paths, *arguments: str) -> int:
    """Becomes psql on the running database; SQL comes from stdin or the terminal."""
    settings = read_settings(os.environ)
    found = _found(paths)
    if found is None and not settings.external:
        raise ConfigError("the database does not run; 'make run' starts it")
    at = _login(paths, found)
    program = postgres.wheel_folder() / postgres.INSTALL / "bin" / "psql"
    told = {
        "PGHOST": at.host,
        "PGPORT": str(at.port),
        "PGDATABASE": at.name,
        "PGUSER": at.user,
        "PGPASSWORD": at.password,
    }
    os.execve(program, [str(program), "-X", "-v", "ON_ERROR_STOP=1", *arguments], {**os.environ, **told})


def with_services(paths: stack.Paths, names: str, *command: str) -> int:
    """Runs a command with the named services up: those of a running stack, else its own, which end with it.

    The command finds DB_* and API_PORT in its environment. Returns its exit code.
    """
    wanted = names.split(",")
    settings = read_settings(os.environ)
    found = _found(paths)
    if found is not None:
        missing = set(wanted) - {running.name for running in found.services}
        if missing:
            raise ConfigError(f"packtwin runs here without {', '.join(sorted(missing))}; 'make stop' it first")
        return _call(command, settings, _login(paths, found), found.api_url, found.environment)
    with alone(paths):
        at = stack.login(settings, paths)
        makers: Mapping[str, Callable[[], Service]] = {
            "database": lambda: stack.database(settings, at, paths),
            "api": lambda: stack.api(settings, at),
        }
        if set(wanted) - set(makers):
            raise ConfigError(f"with: {names} is not a list of {', '.join(makers)}")
        with running([makers[name]() for name in wanted], settings, at, paths, aside):
            return _call(command, settings, at, stack.api_url(settings), {})


def _call(command: Sequence[str], settings: Settings, at: postgres.Login, api_url: str, more: Mapping[str, str]) -> int:
    told = {
        **settings.environment,
        **more,
        **at.environment(),
        "PACKTWIN_URL": api_url,
        "API_PORT": api_url.rsplit(":", 1)[1],
    }
    return subprocess.run(command, env=told, check=False).returncode


def _found(paths: stack.Paths) -> state.State | None:
    """Returns the state of a stack that really runs; None when none does."""
    found = state.read(paths.state)
    return found if found is not None and is_alive(found.supervisor) else None


def _login(paths: stack.Paths, found: state.State | None) -> postgres.Login:
    settings = read_settings(os.environ)
    told = settings.cloud.database
    if found is None:
        return postgres.Login(told.host, told.port, told.name, told.user, told.password)
    password = told.password or state.secret(paths.secrets, "DB_PASSWORD", "")
    at = found.database
    return postgres.Login(at["DB_HOST"], int(at["DB_PORT"]), at["DB_NAME"], at["DB_USER"], password)


def say(sentence: str) -> None:
    """Prints a line at once, also into a pipe; a terminal that went away does not disturb the services."""
    with contextlib.suppress(OSError):
        print(sentence, flush=True)


def aside(sentence: str) -> None:
    """Says it on stderr: stdout belongs to the command that the services run for."""
    with contextlib.suppress(OSError):
        print(sentence, file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Runs one command. Returns 0, 1 (the work failed) or 2 (usage, setting), the reason in one sentence on stderr."""
    paths = stack.Paths(stack.LOCAL)
    try:
        match list(arguments):
            case ["run"]:
                return run(paths)
            case ["status"]:
                return status(paths)
            case ["stop"]:
                return stop(paths)
            case ["logs", *lines] if len(lines) <= 1:
                return logs(paths, *lines)
            case ["psql", *rest]:
                return psql(paths, *rest)
            case ["with", names, "--", *command] if command:
                return with_services(paths, names, *command)
            case _:
                print((__doc__ or "").strip().splitlines()[-1], file=sys.stderr)
                return 2
    except Stopped:
        return 0
    except PacktwinError as error:
        print(f"packtwin: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:
        print(f"packtwin: {_in_words(error, paths)}", file=sys.stderr)
        return 1


def _in_words(error: OSError, paths: stack.Paths) -> str:
    what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
    if error.errno == errno.ENOSPC:
        return f"the disk of {paths.local} is full; make room and start again"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{what}; the checkout must belong to you, or remove .local if another user made it"
    return what


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
