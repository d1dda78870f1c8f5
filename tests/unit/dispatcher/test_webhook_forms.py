"""Signatures as OpenAI's client checks them, secrets that nobody keeps, and what follows from a try."""

from __future__ import annotations

import time

import pytest
from openai import InvalidWebhookSignatureError, OpenAI

from dispatcher.deliveries.plan import JITTER, TRIES, WAITS, Answer, Delivered, GiveUp, TryAgain, next_step
from promptq.contract.webhooks import body_of, derive_secret, signed_headers

BODY = body_of("evt_1", "response.completed", 1_800_000_000.7, "resp_1")
SECRET = derive_secret("the server's own", "we_1", 1)


def unwrapped(secret: str, secrets: list[str], body: bytes = BODY, at: float | None = None) -> object:
    client = OpenAI(api_key="x", webhook_secret=secret)
    headers = dict(signed_headers("evt_1", time.time() if at is None else at, body, secrets))
    return client.webhooks.unwrap(body.decode(), headers)


class TestSignatures:
    def test_openais_client_unwraps_an_event(self) -> None:
        event = unwrapped(SECRET, [SECRET])
        assert (event.id, event.type, event.data.id, event.created_at) == (  # type: ignore[attr-defined]
            "evt_1", "response.completed", "resp_1", 1_800_000_000,
        )  # fmt: skip

    def test_while_a_secret_rotates_both_are_good(self) -> None:
        new = derive_secret("the server's own", "we_1", 2)
        assert unwrapped(SECRET, [new, SECRET])
        assert unwrapped(new, [new, SECRET])
        with pytest.raises(InvalidWebhookSignatureError):
            unwrapped(SECRET, [new])

    def test_another_body_or_an_old_one_is_refused(self) -> None:
        client = OpenAI(api_key="x", webhook_secret=SECRET)
        headers = dict(signed_headers("evt_1", time.time(), BODY, [SECRET]))
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.unwrap(BODY.decode().replace("resp_1", "resp_2"), headers)
        with pytest.raises(InvalidWebhookSignatureError):
            unwrapped(SECRET, [SECRET], at=time.time() - 3600)

    def test_each_endpoint_version_and_server_has_a_secret_of_its_own(self) -> None:
        derived = {derive_secret(*each) for each in (("s", "a", 1), ("s", "a", 2), ("s", "b", 1), ("t", "a", 1))}
        assert len(derived) == 4
        assert derive_secret("s", "a", 1) in derived


class TestPlan:
    @pytest.mark.parametrize("status", [200, 202, 204])
    def test_a_success_is_a_delivery(self, status: int) -> None:
        assert next_step(Answer(status), 1, 0.5) == Delivered()

    @pytest.mark.parametrize("answer", [Answer(500), Answer(302), Answer(404), Answer(trouble="No response.")])
    def test_all_else_is_tried_again_ever_later(self, answer: Answer) -> None:
        steps = [next_step(answer, tries, 0.0) for tries in range(1, TRIES)]
        assert steps == [TryAgain(wait, answer.words) for wait in WAITS]
        assert list(WAITS) == sorted(WAITS)

    def test_ten_tries_take_at_most_three_days(self) -> None:
        assert TRIES == 10
        assert 2 * 86_400 < sum(WAITS) < sum(WAITS) * (1 + JITTER) <= 3 * 86_400

    def test_the_last_failure_disables_and_so_does_410(self) -> None:
        last = next_step(Answer(503), TRIES, 0.5)
        assert last == GiveUp("10 tries failed; the last one: HTTP 503.", disables=True)
        gone = next_step(Answer(410), 1, 0.5)
        assert isinstance(gone, GiveUp)
        assert gone.disables

    def test_retry_after_is_honoured_within_a_day_and_never_shortens(self) -> None:
        waits = [next_step(Answer(429, asked), 1, 1.0) for asked in (0.0, 1.0, 600.0, 1e9)]
        assert waits == [TryAgain(after, "HTTP 429") for after in (6.0, 6.0, 600.0, 86_400.0)]
