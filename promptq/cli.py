"""The command `promptq`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import promptq
from promptq.runtime.programs import command, environment

PROGRAMS = {
    "api": ("api", "the HTTP API"),
    "worker": ("gpu_worker", "one worker; the scaler starts its own"),
    "scaler": ("scaler", "the scaler and its workers"),
    "dispatcher": ("dispatcher", "runs batches"),
    "key": ("api.api_keys", "make an API key: promptq key NAME"),
}
"""By subcommand: the module that this process becomes, and what it is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. The exit codes are those of `promptq.contract.exit_codes`."""
    given = _parser().parse_args(arguments)
    if given.command == "up":
        from promptq.up.main import main as up

        return up()
    return _become(PROGRAMS[given.command][0], getattr(given, "arguments", []))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("promptq", description="Text generation as asynchronous jobs, on your own GPUs.")
    parser.add_argument("--version", action="version", version=f"promptq {promptq.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="the whole service on this machine; Ctrl-C drains and stops")
    for name, (_, text) in PROGRAMS.items():
        one = commands.add_parser(name, help=text)
        if name == "key":
            one.add_argument("arguments", nargs=1, metavar="NAME")
    parser.epilog = "Settings are environment variables PROMPTQ_*, or lines of .env in the working folder."
    return parser


def _become(module: str, arguments: Sequence[str]) -> NoReturn:
    """The same process, so that signals reach the program and its exit code is ours."""
    sys.stdout.flush()
    os.execve(sys.executable, command(module, *arguments), environment())


if __name__ == "__main__":
    sys.exit(main())
