"""What may be called, and what may not."""

import pytest

from services.notifications.webhooks.addresses import Destinations, ForbiddenAddressError

NOWHERE = Destinations()
LOOPBACK = Destinations.of("127.0.0.0/8, fd00::/8", http=True)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.0.1"),
        *("169.254.169.254", "100.64.0.1", "100.100.100.200", "192.0.0.192", "168.63.129.16"),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255", "198.18.0.1"),
        *("192.0.2.1", "203.0.113.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1"),
        *("fd00:ec2::254", "fec0::1", "ff02::1", "ff0e::1", "2001:db8::1", "::127.0.0.1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "::ffff:100.64.0.1"),
        *("64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::1", "2002:a9fe:a9fe::1"),
        *("2001::1", "100::1"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    """Nothing of a machine, its network, its host or of nobody is called, however it is written."""
    with pytest.raises(ForbiddenAddressError, match="is not an address that may be called"):
        NOWHERE.check(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "::ffff:8.8.8.8", "2606:4700::1111"])
def test_public_addresses(address: str) -> None:
    """The Internet is called."""
    NOWHERE.check(address)


def test_what_the_operator_allows() -> None:
    """Networks that are allowed may be called, those beside them not."""
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "fd00::1"):
        LOOPBACK.check(address)
    for address in ("10.0.0.1", "::1"):
        with pytest.raises(ForbiddenAddressError):
            LOOPBACK.check(address)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://example.com/hook?x=1", ""),
        ("https://example.com:8443", ""),
        ("https://[2606:4700::1111]/", ""),
        ("http://example.com/", "must be https"),
        ("ftp://example.com/", "must be of the form https://host/path"),
        ("example.com/hook", "must be of the form https://host/path"),
        ("https:///hook", "must be of the form https://host/path"),
        ("https://example.com:0/", "must be of the form https://host/path"),
        ("https://example.com:99999/", "is no URL"),
        ("https://[::1/", "is no URL"),
        ("https://user:pw@example.com/", "must have neither user, password nor fragment"),
        ("https://example.com/#x", "must have neither user, password nor fragment"),
        ("https://127.0.0.1/", "127.0.0.1 is not an address that may be called"),
        ("https://[::ffff:10.0.0.1]/", "::ffff:a00:1 is not an address that may be called"),
    ],
)
def test_urls(url: str, problem: str) -> None:
    """What is wrong with a URL is said when it is registered."""
    assert NOWHERE.problem(url) == problem
