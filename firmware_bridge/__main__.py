"""`python -m firmware_bridge`, also `packtwin-sim`: simulated cars."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn

from firmware_bridge.decode_command import add_decode
from firmware_bridge.list_command import add_list
from firmware_bridge.lives.commands import add_lives
from firmware_bridge.sim.commands import add_fault, add_sim
from firmware_bridge.virtual.commands import add_virtual
from shared.errors import ConfigError, PacktwinError


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}: see `{self.prog} --help`")


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Returns 0, 2 for bad usage or configuration, 1 when the work failed."""
    parser = _Parser(prog="python -m firmware_bridge", description="Simulated cars with batteries to talk to.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (add_sim, add_fault, add_lives, add_virtual, add_decode, add_list):
        add(commands)
    try:
        args = parser.parse_args(argv)
        code: int = args.run(args)
    except PacktwinError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:
        # Who read our output has had enough; what is left in the buffer must not be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
