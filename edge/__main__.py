"""`python -m edge`, also `packtwin-edge`: the agent on the box beside the battery."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from edge.capture.command import add_capture
from edge.commands import add_replay, add_run, add_status
from edge.decode_command import add_decode
from edge.doctor.command import add_doctor
from edge.model_command import add_model
from shared.errors import ConfigError, PacktwinError


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}: see `{self.prog} --help`")


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Returns 0, 2 for bad usage or configuration, 1 when the work failed."""
    parser = _Parser(prog="python -m edge", description="The agent that reads batteries and keeps every sample safe.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (add_run, add_status, add_decode, add_doctor, add_replay, add_capture, add_model):
        add(commands)
    try:
        args = parser.parse_args(argv)
        code: int = args.run(args)
    except PacktwinError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Who read our output has had enough; what is left in the buffer must not be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
