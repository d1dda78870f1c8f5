"""The command `promptq`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import promptq
from promptq.runtime.programs import command, environment

PROGRAMS = {
    "api": ("api", "the HTTP API"),
    "worker": ("gpu_worker", "one worker, on any host that reaches Redis; the scaler starts its own"),
    "scaler": ("scaler", "the scaler and its workers"),
    "dispatcher": ("dispatcher", "runs batches"),
    "key": ("api.api_keys", "make an API key: promptq key NAME"),
}
"""By subcommand: the module that this process becomes, and what it is."""


class _Help(argparse.HelpFormatter):
    """Leaves room for the longest command: argparse does not count that commands stand further in than options."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        self._action_max_length = max(self._action_max_length, 2 + max(map(len, PROGRAMS)) + self._indent_increment)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. The exit codes are those of `promptq.contract.exit_codes`."""
    given = _parser().parse_args(arguments)
    if given.command == "batch":
        from promptq.client.run_batch import main as run_batch

        return run_batch(given)
    if given.command == "up":
        from promptq.up.main import main as up

        return up()
    values = {name: value for name, value in vars(given).items() if name.startswith("PROMPTQ_") and value}
    return _become(PROGRAMS[given.command][0], getattr(given, "arguments", []), values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "promptq", description="Text generation as asynchronous jobs, on your own GPUs.", formatter_class=_Help
    )
    parser.add_argument("--version", action="version", version=f"promptq {promptq.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("up", help="the whole service on this machine; Ctrl-C drains and stops")
    for name, (_, text) in PROGRAMS.items():
        one = commands.add_parser(name, help=text)
        if name == "key":
            one.add_argument("arguments", nargs=1, metavar="NAME")
        if name == "worker":
            _add_worker(one)
    _add_batch(commands.add_parser("batch", help="run a file of calls: promptq batch run in.jsonl -o out.jsonl"))
    parser.epilog = "Settings are environment variables PROMPTQ_*, or lines of .env in the working folder."
    return parser


def _add_worker(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--redis", dest="PROMPTQ_REDIS_URL", metavar="URL", help="of the queue: rediss://host:6380/0")
    parser.add_argument(
        "--model", dest="PROMPTQ_WORKER_MODEL", metavar="NAME", help="of the catalogue; else its default"
    )
    parser.add_argument("--name", dest="PROMPTQ_WORKER_NAME", help="that no other worker has; else of host and process")


def _add_batch(parser: argparse.ArgumentParser) -> None:
    run = parser.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
        "run", help="upload, wait, and write what came back"
    )
    run.add_argument("input", nargs="?", help="JSON lines: custom_id, method, url, body")
    run.add_argument("-o", "--output", required=True, help="where the answers go; what has none goes to OUTPUT.errors")
    run.add_argument("--endpoint", help="unless given: the url of the first line")
    run.add_argument("--window", default="24h", help="how long it may take, as 24h or 15m")
    run.add_argument("--url", default="http://127.0.0.1:8000", help="of the API")
    run.add_argument("--key-variable", default="", help="the environment variable that has the API key")
    run.add_argument("--batch", default="", help="go on waiting for this batch, in place of a new one")


def _become(module: str, arguments: Sequence[str], settings: Mapping[str, str]) -> NoReturn:
    """The same process, so that signals reach the program and its exit code is ours."""
    sys.stdout.flush()
    os.execve(sys.executable, command(module, *arguments), environment((), **settings))


if __name__ == "__main__":
    sys.exit(main())
