"""What is said of a connection that could not be made."""

from __future__ import annotations

import pytest

from promptq.contract.redis_errors import explain

VERIFY = (
    "Error 1 connecting to host:6379. [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {} (_ssl.c:1006)."
)
REPR = "<redis.client.Redis(<redis.connection.ConnectionPool(<redis.connection.Connection(host={},port=1)>)>)>"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (VERIFY.format("self-signed certificate in chain"), "self-signed certificate in chain; name the file"),
        (VERIFY.format("unable to get local issuer certificate"), "issuer certificate; name the file of its CA"),
        (VERIFY.format("certificate has expired"), "its certificate is not accepted: certificate has expired"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED]", "it cannot be verified"),
        ("[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required", "asks for a client certificate"),
        ("[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] sslv3 alert handshake failure", "may ask for a client certificate"),
        ("[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca", "CA of our client certificate"),
        ("Error 8 while writing to socket. EOF occurred in violation of protocol (_ssl.c:2427).", "it broke off TLS"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "redis:// in place of rediss://"),
    ],
)  # fmt: skip
def test_what_tls_says_is_put_in_words(text: str, words: str) -> None:
    assert words in explain(text)
    assert "_ssl" not in explain(text)


@pytest.mark.parametrize(
    ("kinds", "words"),
    [
        (("network:ConnectionError", "TimeoutError"), "do not answer"),
        (("network:ConnectionError", "auth:AuthenticationError"), "sentinel_password="), ((), "name may be wrong"),
    ],
)  # fmt: skip
def test_what_sentinels_say_is_put_in_words(kinds: tuple[str, ...], words: str) -> None:
    errors = ", ".join(f"{REPR.format(f'host-{i}')} - {kind}" for i, kind in enumerate(kinds))
    said = explain("No master found for 'queue'" + (f" : {errors}" if errors else ""))
    assert words in said
    assert "'queue'" in said
    assert "redis.client" not in said


def test_any_other_text_is_kept() -> None:
    assert explain("Connection closed by server.") == "Connection closed by server."
