"""Where a target listens, as endpoints: what is written out at once, names by looking them up."""

import ipaddress
import socket
from collections.abc import Iterable
from typing import Final

from accord.xds.resources import Endpoint
from accord.xds.routes import RouteError

_PREFIXES: Final = ("ipv4:", "ipv6:", "dns:///", "dns:")


def split(address: str) -> list[Endpoint]:
    """Hosts and ports of "10.0.0.7:9051", "ipv4:a:1,b:2" or "dns:///name:9051".

    Raises RouteError.
    """
    if address.startswith("dns://") and not address.startswith("dns:///"):
        raise RouteError(f"{address!r} asks a name server of its own, which xDS cannot")
    prefix = next((each for each in _PREFIXES if address.startswith(each)), "")
    found: list[Endpoint] = []
    for each in address.removeprefix(prefix).split(","):
        host, _, port = each.strip().rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536 or "/" in host:
            raise RouteError(f"{address!r} is no address such as '10.0.0.7:9051'")
        if prefix.startswith("ip") and not is_ip(host):
            raise RouteError(f"{address!r}: {host!r} is no IP address")
        found.append((host, int(port)))
    return found


def is_ip(host: str) -> bool:
    """Whether a host is written as an IP address."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def look_up(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """The same with IP addresses only, sorted. Blocks. Raises OSError: a name is not known."""
    found: set[Endpoint] = set()
    for host, port in endpoints:
        if is_ip(host):
            found.add((host, port))
        else:
            answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found.update((str(each[4][0]), port) for each in answers)
    return tuple(sorted(found))
