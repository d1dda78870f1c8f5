"""What the tests of processes share: ports that nobody else is given, and waiting for what another process does."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from promptq.queue.embedded import free_port as free_port_of_product
from tests.processes import PORTS, ROOT, free_port, wait_for_value

OTHER = "import sys, tests.processes as p; p.PORTS = [int(sys.argv[1])] * 99 + [int(sys.argv[2])]; print(p.free_port())"


def test_a_port_that_is_not_used_yet_is_given_to_no_other_test_process() -> None:
    given, free = free_port(), free_port_of_product()
    command = [sys.executable, "-c", OTHER, str(given), str(free)]
    assert int(subprocess.check_output(command, cwd=ROOT)) == free
    assert free not in PORTS
    with socket.create_server(("127.0.0.1", given)):
        pass


def test_a_value_is_waited_for() -> None:
    counts = iter([1, 2, 3])
    wait_for_value(lambda: next(counts), 3)


def test_one_that_never_comes_is_told_with_what_there_is() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.05 s for the exits to be 4: it is 3\.0"):
        wait_for_value(lambda: 3.0, 4, 0.05, "the exits")
