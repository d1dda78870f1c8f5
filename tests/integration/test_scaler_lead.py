"""Two scaler processes on one server: one leads, the other takes over."""

from __future__ import annotations

import signal
import urllib.error

from promptq.queue.embedded import EmbeddedServer
from tests.fakes import TimedStore
from tests.integration.scalers import Scaler, all_succeed, put, scaler
from tests.processes import wait_until

LEADS = "promptq_scaler_leads"


def answers(one: Scaler) -> bool:
    try:
        return bool(one.get("/livez"))
    except urllib.error.URLError:
        return False


def test_the_other_scaler_goes_on_with_the_work_of_one_that_was_killed(
    server: EmbeddedServer, store: TimedStore
) -> None:
    # A lease far longer than the test: nobody waits for its end.
    with scaler(server, lease_seconds=600) as first:
        (before,) = first.has(1)
        with scaler(server, lease_seconds=600) as second:
            wait_until(lambda: answers(second), what="the second one to answer")
            second.looks()
            assert (first.value(LEADS), second.value(LEADS), second.children()) == (1, 0, [])
            assert second.value('promptq_workers_wanted{model="echo"}') is None
            ids = put(store, 20)
            first.process.send_signal(signal.SIGKILL)
            wait_until(lambda: second.value(LEADS) == 1, what="the other to lead")
            all_succeed(store, ids)
            assert before not in second.has(1)
            assert {store.get(job).attempts for job in ids} == {1}
