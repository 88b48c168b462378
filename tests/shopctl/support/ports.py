"""Free ports."""

import random
import socket

from services.runtime import topology


def free_port() -> int:
    """A port that nothing listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def free_offset() -> int:
    """A port offset with which every port of the shop is free.

    It moves the services above the range from which the kernel takes ports for outgoing
    connections, so that no other test can take one of them by accident.
    """
    for _ in range(100):
        offset = random.randrange(11_000, topology.MAX_OFFSET)
        ports = [topology.port(name, offset) for name in (topology.BROKER, *topology.SERVICES)]
        ports += [port + topology.METRICS_DISTANCE for port in ports]
        if all(_free(port) for port in [*ports, topology.smtp_port(offset)]):
            return offset
    raise AssertionError("no free ports")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
