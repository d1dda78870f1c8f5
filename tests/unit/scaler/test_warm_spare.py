"""When there is a spare, and what it is told."""

from __future__ import annotations

import pytest

from promptq.contract.assignment import Assignment
from promptq.contract.errors import SettingsError
from promptq.contract.settings import ScalerSettings
from scaler.assembly import Assembly
from scaler.fleets.gpus import Gpus
from scaler.fleets.local import SPARE_COMMAND
from scaler.fleets.warm_spare import wants_spare


@pytest.mark.parametrize(
    ("states", "wanted", "backs_off", "wants"),
    [
        (["idle"], 1, False, True),
        (["busy", "busy"], 2, False, True),
        (["draining"], 0, False, True),
        (["idle", "starting"], 2, False, False),  # its imports would slow that start down
        (["draining", "starting"], 1, False, False),
        ([], 0, False, True),
        ([], 1, False, False),  # the first worker goes before it
        (["idle"], 2, True, False),
        ([], 0, True, False),
    ],
)
def test_a_spare_starts_only_where_it_is_in_nobodys_way(
    states: list[str], wanted: int, backs_off: bool, wants: bool
) -> None:
    assert wants_spare(states, wanted, backs_off) is wants


@pytest.mark.parametrize(
    ("fields", "command"),
    [({}, SPARE_COMMAND), ({"spare_worker": False}, ()), ({"engine": "echo"}, ()), ({"device": "cuda"}, SPARE_COMMAND)],
)
def test_there_is_one_by_default_and_none_for_echo(fields: dict[str, object], command: tuple[str, ...]) -> None:
    settings = ScalerSettings(_env_file=None, **fields)
    assert Assembly(settings, Gpus(nvml=None)).fleet_settings().spare_command == command


def test_an_assignment_is_one_line_whatever_it_holds() -> None:
    sent = Assignment(environment={"PROMPTQ_WORKER_NAME": "w\n1", "Ä": "=é"}, at=12.5)
    assert sent.line().count(b"\n") == 1
    assert Assignment.parse(sent.line()) == sent


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"\n", "line: Invalid JSON"),
        (b"{}\n", "environment: Field required"),
        (b'{"environment": {"A": 1}, "at": 0}\n', "environment.A: Input should be a valid string"),
        (b'{"environment": {}, "at": 0, "model": "x"}\n', "model: Extra inputs"),
    ],
)
def test_a_line_that_is_none_is_refused_by_name(line: bytes, says: str) -> None:
    with pytest.raises(SettingsError, match="no assignment on stdin") as caught:
        Assignment.parse(line)
    assert says in caught.value.message
