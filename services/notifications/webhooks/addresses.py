"""Which addresses a webhook may be sent to."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from yarl import URL

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SERVICES_OF_HOSTS: Final = (
    IPv4Network("168.63.129.16/32"),  # Azure: the host of a virtual machine
    IPv4Network("192.0.0.0/24"),  # Oracle: its metadata; those of all others are link-local
)


class ForbiddenAddressError(OSError):
    """This address may not be called."""


@dataclass(frozen=True, slots=True)
class Destinations:
    """What may be called: public addresses by https, and what the operator allows beside these."""

    networks: Sequence[Network] = ()
    http: bool = False

    @classmethod
    def of(cls, networks: str, *, http: bool) -> "Destinations":
        """From the settings: networks as `127.0.0.0/8,10.1.0.0/16`."""
        return cls([ip_network(each.strip()) for each in networks.split(",") if each.strip()], http)

    def check(self, host: str) -> None:
        """Look at an address, in numbers.

        Raises:
            ForbiddenAddressError: it may not be called.
        """
        found = ip_address(host)
        address = getattr(found, "ipv4_mapped", None) or found
        if not any(address in network for network in self.networks) and not _public(address):
            raise ForbiddenAddressError(f"{host} is not an address that may be called")

    def problem(self, url: str) -> str:
        """Why this cannot be the URL of a webhook; empty if it can. Names are looked up later."""
        try:
            parsed = URL(url)
            host, port = parsed.host, parsed.port
        except ValueError:
            return "is no URL"
        if not host or not port or parsed.scheme not in ("https", "http"):
            return "must be of the form https://host/path"
        if parsed.scheme == "http" and not self.http:
            return "must be https"
        if parsed.user is not None or parsed.password is not None or "#" in url:
            return "must have neither user, password nor fragment"
        try:
            self.check(host)
        except ForbiddenAddressError as error:
            return str(error)
        except ValueError:
            pass  # A name. What it stands for may change: each connection is checked.
        return ""


def _public(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        inner = address.sixtofour
        return (
            address.is_global
            and not (address.is_multicast or address.is_reserved or address.is_site_local)
            and (inner is None or _public(inner))
        )
    known = any(address in network for network in _SERVICES_OF_HOSTS)
    return address.is_global and not (known or address.is_multicast or address.is_reserved)
