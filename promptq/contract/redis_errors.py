"""What redis-py says of a connection that was not made, in words that say what to do. Pure."""

from __future__ import annotations

import re
from typing import Final

_KIND = re.compile(r" - (?:\w+:)?(\w+)(?:, |$)")
_REASON = re.compile(r"certificate verify failed: (.*?)\.? ?(?:\(_ssl|$)")
_TLS: Final = (
    ("CERTIFICATE_VERIFY_FAILED", ""),
    ("CERTIFICATE_REQUIRED", "it asks for a client certificate: ssl_certfile= and ssl_keyfile="),
    ("HANDSHAKE_FAILURE", "it does not accept how we speak TLS; it may ask for a client certificate: ssl_certfile="),
    ("ALERT_UNKNOWN_CA", "it does not know the CA of our client certificate (ssl_certfile)"),
    ("ALERT_BAD_CERTIFICATE", "it does not accept our client certificate (ssl_certfile)"),
    ("ALERT_CERTIFICATE_EXPIRED", "our client certificate (ssl_certfile) has expired"),
    (
        "violation of protocol",
        "it broke off TLS; it may ask for a client certificate of a CA that it knows: ssl_certfile=",
    ),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS on this port: redis:// in place of rediss://"),
    ("RECORD_LAYER_FAILURE", "it does not speak TLS on this port: redis:// in place of rediss://"),
)
"""What OpenSSL names a failure, and what it means here."""


def explain(text: str) -> str:
    """The error's text, or where it is known what lies behind it, that."""
    if text.startswith("No master found"):
        return _of_sentinels(text)
    for name, words in _TLS:
        if name in text:
            return words or _of_certificate(text)
    return text


def _of_certificate(text: str) -> str:
    found = _REASON.search(text)
    reason = found[1] if found else "it cannot be verified"
    is_unknown = "self-signed" in reason or "issuer" in reason
    advice = "; name the file of its CA: ssl_ca_certs=" if is_unknown else ""
    return f"its certificate is not accepted: {reason}{advice}"


def _of_sentinels(text: str) -> str:
    """redis-py shows their addresses and the kinds of their errors, and not what those say."""
    service, _, errors = text.removeprefix("No master found for ").partition(" : ")
    kinds = set(_KIND.findall(errors))
    if "AuthenticationError" in kinds:
        behind = "; their user or password is missing or wrong: sentinel_username=, sentinel_password="
    else:
        behind = "; some or all of them do not answer" if kinds else "; its name may be wrong, or it has none now"
    return f"no Sentinel names a primary of the service {service}{behind}"
