"""Hosts and ports, IPv6 among them."""

from __future__ import annotations

import pytest

from promptq.contract import addresses
from promptq.contract.settings import ApiSettings, ScalerSettings


@pytest.mark.parametrize(
    ("host", "written", "url"),
    [
        ("127.0.0.1", "127.0.0.1:80", "http://127.0.0.1:80"),
        ("0.0.0.0", "0.0.0.0:80", "http://127.0.0.1:80"),
        ("::1", "[::1]:80", "http://[::1]:80"),
        ("::", "[::]:80", "http://[::1]:80"),
        ("gpu7", "gpu7:80", "http://gpu7:80"),
    ],
)
def test_an_ipv6_address_is_written_in_brackets(host: str, written: str, url: str) -> None:
    assert addresses.host_port(host, 80) == written
    assert addresses.local_url(host, 80) == url
    assert addresses.split(f"http://{written}/metrics") == (host, 80)


@pytest.mark.parametrize("url", ["", "http://::1:4001/metrics", "http://[::1", "http://h:port", "nonsense", "http://"])
def test_what_is_no_url_has_no_host_and_port(url: str) -> None:
    assert addresses.split(url) is None


def test_hosts_of_the_settings_may_stand_in_brackets() -> None:
    assert ApiSettings(_env_file=None, api_host="[::1]").api_host == "::1"
    assert ScalerSettings(_env_file=None, advertised_host="fe80::1%eth0").advertised_host == "fe80::1%eth0"


@pytest.mark.parametrize("host", ["", "localhost:8000", "http://localhost", "[::1]:8000", "::g"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="without scheme and port"):
        ScalerSettings(_env_file=None, scaler_host=host)


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://promptq.example.org", "https://promptq.example.org"),
        ("HTTPS://Promptq.Example.org:443/", "https://promptq.example.org"),
        ("http://gpu7:8080", "http://gpu7:8080"),
        ("http://gpu7:443", "http://gpu7:443"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ("", ""),
    ],
)
def test_an_origin_is_what_browsers_send(given: str, sent: str) -> None:
    assert ApiSettings(_env_file=None, public_origin=given).public_origin == sent


@pytest.mark.parametrize(
    "given",
    [
        "promptq.example.org",
        "*",
        "null",
        "https://",
        "https://a/b",
        "https://a?b",
        "https://u@a",
        "https://a:b",
        "ws://a",
    ],
)
def test_what_is_no_origin_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="give https://host"):
        ApiSettings(_env_file=None, public_origin=given)
