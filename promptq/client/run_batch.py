"""`promptq batch run`: a file of calls goes up, and what comes of them is written beside it."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from promptq.client.api import Api, CallFailed
from promptq.contract import environment
from promptq.contract.batches import ENDED
from promptq.contract.exit_codes import ExitCode

FIRST_POLL_SECONDS = 0.2
LAST_POLL_SECONDS = 5.0
BAR_CHARS = 30
SILENT_SECONDS = 5.0
"""How long the API may be away before that is said."""
AWAY = (0, 429, 502, 503, 504)
"""Statuses after which the same call is made again: the batch goes on meanwhile."""


def main(given: argparse.Namespace) -> int:
    """Run it. 0: every line has its answer; 1: some have none, or it could not be run."""
    batch_id = given.batch
    try:
        api = Api(given.url, _key(given.key_variable))
        _check_place(Path(given.output))
        batch_id = batch_id or _start(api, given)
        batch = _wait(api, batch_id)
        return _write(api, batch, Path(given.output))
    except KeyboardInterrupt:
        print(f"\n{how_to_go_on(given, batch_id)}" if batch_id else "\nNo batch was made.", file=sys.stderr)
        return ExitCode.KILLED
    except (CallFailed, OSError, ValueError) as error:
        print(f"promptq: {error}", file=sys.stderr)
        return ExitCode.CRASHED


class AwayNotice:
    """Says once that the API is away, and once that it is back."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._is_said = False

    def failed(self, error: CallFailed, now: float) -> None:
        """It did not answer; `now` by the monotonic clock, in seconds."""
        self._since = now if self._since is None else self._since
        if now - self._since >= SILENT_SECONDS and not self._is_said:
            print(f"\npromptq: no answer, trying on: {error}", file=sys.stderr, flush=True)
            self._is_said = True

    def answered(self) -> None:
        """It did."""
        if self._is_said:
            print("promptq: the API answers again", file=sys.stderr, flush=True)
        self._since, self._is_said = None, False


def _key(variable: str) -> str:
    key = environment.secret(variable) if variable else ""
    if variable and not key:
        raise ValueError(f"--key-variable: {variable} is not set, or empty")
    return key


def _check_place(output: Path) -> None:
    """Before a batch runs for hours whose answers have nowhere to go."""
    if not output.parent.is_dir():
        raise ValueError(f"--output: there is no folder {output.parent}")
    if output.is_dir():
        raise ValueError(f"--output: {output} is a folder")


def how_to_go_on(given: argparse.Namespace, batch_id: str) -> str:
    """The command has all that this one had, or it would ask another service, or without the key."""
    key = ["--key-variable", given.key_variable] if given.key_variable else []
    command = ["promptq", "batch", "run", "--batch", batch_id, "-o", given.output, "--url", given.url, *key]
    return f"The batch goes on. Wait for it again: {shlex.join(command)}"


def bar(batch: dict[str, Any]) -> str:
    """How far a batch is, in one line."""
    counts = batch["request_counts"]
    done, total = counts["completed"] + counts["failed"], counts["total"]
    filled = BAR_CHARS * done // total if total else 0
    failed = f", {counts['failed']} failed" if counts["failed"] else ""
    return f"{batch['status']:<11} [{'#' * filled}{'.' * (BAR_CHARS - filled)}] {done}/{total}{failed}"


def _start(api: Api, given: argparse.Namespace) -> str:
    if not given.input:
        raise ValueError("give a file to run, or --batch")
    path = Path(given.input)
    body = {"endpoint": given.endpoint or _first_url(path), "completion_window": given.window}
    made = api.call("POST", "/v1/batches", body | {"input_file_id": api.upload(path)["id"]})
    print(f"batch {made['id']}", file=sys.stderr)
    return str(made["id"])


def _first_url(path: Path) -> str:
    with path.open("rb") as file:
        first = next(filter(bytes.strip, file), b"")
    try:
        return str(json.loads(first)["url"])
    except (ValueError, LookupError, TypeError):
        raise ValueError(f"{path}: the first line has no url; give --endpoint") from None


def _wait(api: Api, batch_id: str) -> dict[str, Any]:
    pause, shows, notice = FIRST_POLL_SECONDS, sys.stderr.isatty(), AwayNotice()
    while True:
        try:
            batch = api.call("GET", f"/v1/batches/{batch_id}")
            notice.answered()
        except CallFailed as error:
            if error.status not in AWAY:
                raise
            notice.failed(error, time.monotonic())
            batch = {}
        if batch and (shows or batch["status"] in ENDED):
            print(f"\r{bar(batch)}", end="", file=sys.stderr, flush=True)
        if batch and batch["status"] in ENDED:
            print(file=sys.stderr)
            return batch
        time.sleep(pause)
        pause = min(LAST_POLL_SECONDS, pause * 1.2)


def _write(api: Api, batch: dict[str, Any], output: Path) -> int:
    for error in (batch["errors"] or {}).get("data", ()):
        print(f"line {error['line']}: {error['message']}" if error["line"] else error["message"], file=sys.stderr)
    beside = output.with_name(output.name + ".errors")
    for file_id, target in ((batch["output_file_id"], output), (batch["error_file_id"], beside)):
        if file_id:
            api.download(file_id, target)
            print(f"wrote {target}", file=sys.stderr)
        elif batch["request_counts"]["total"]:
            target.unlink(missing_ok=True)  # an earlier run's, which would be taken for this one's
    is_whole = batch["status"] == "completed" and not batch["request_counts"]["failed"]
    return ExitCode.OK if is_whole else ExitCode.CRASHED
