"""Failed lines of a batch that has ended run again: their entries leave the error file."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic_core import from_json

from dispatcher.batches.context import Context
from dispatcher.batches.lines import number_of
from promptq.contract.batches import BatchRecord, Kind, Part
from promptq.contract.files import part_path, path_of
from promptq.runtime import failpoints
from promptq.storage.storage import ObjectMissing

ALL = "*"


def reopen(context: Context, batch: BatchRecord, token: str) -> None:
    """Take the lines that are to run again out of the batch's error file. To be called again where it raises.

    Raises:
        LeaseLost: another dispatcher holds the batch.
        RedisUnavailable, StorageUnavailable: something does not answer.
    """
    again: list[int] = []
    mark = f"{batch.round + 1:06d}-{token}-kept"
    parts = [
        _part(context, batch, "output", mark, _lines(context, batch, "output")),
        _part(context, batch, "error", mark, _kept(context, batch, again)),
    ]
    failpoints.hit("dispatcher.redrive_written")
    context.batches.reopen(batch, token, [part for part in parts if part.lines], again)


def _kept(context: Context, batch: BatchRecord, again: list[int]) -> Iterator[bytes]:
    """The entries that stay; the numbers of the other lines go to `again`."""
    for raw in _lines(context, batch, "error"):
        entry = from_json(raw)
        if batch.redrive in (ALL, entry["custom_id"]):
            again.append(number_of(batch, entry["id"]))
        else:
            yield raw


def _lines(context: Context, batch: BatchRecord, kind: Kind) -> Iterator[bytes]:
    try:
        for raw in context.storage.lines(path_of(batch.file_id(kind))):
            yield raw + b"\n"
    except ObjectMissing:
        return  # nothing was written, or it was deleted since


def _part(context: Context, batch: BatchRecord, kind: Kind, mark: str, lines: Iterator[bytes]) -> Part:
    count = 0

    def counted() -> Iterator[bytes]:
        nonlocal count
        for raw in lines:
            count += 1
            yield raw

    name = f"{mark}.{kind}"
    size = context.storage.write(part_path(batch.id, name), counted())
    return Part(kind, name, size, count)
