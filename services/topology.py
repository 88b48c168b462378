"""Where the processes of the shop listen: names, base ports and addresses.

Everything listens on loopback, below the ports that systems give to whoever does not ask for a
certain one (Linux: from 32768). A *port offset* moves the whole shop, so that several can run side
by side on one machine.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final

from accord_runtime import settings
from accord_runtime.settings import Addresses

HOST: Final = "127.0.0.1"

SERVICES: Final[Mapping[str, int]] = MappingProxyType(
    {
        "orders": 9051,
        "payments": 9052,
        "inventory": 9053,
        "shipping": 9054,
        "notifications": 9055,
        "customers": 9056,
        "analytics": 9057,
        "accounting": 9058,
        "sandbox": 9060,
    }
)
"""Service name -> base port of its gRPC server."""

SOURCES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "orders": ("inventory", "payments", "shipping"),
        "payments": ("orders", "shipping"),
        "inventory": ("orders", "payments", "shipping"),
        "shipping": ("orders",),
        "notifications": ("orders",),
        "analytics": ("orders",),
        "accounting": ("orders", "payments"),
    }
)
"""Service name -> whose events it takes; the broker gives it no others."""

QUEUES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = MappingProxyType(
    {
        "intake": ("orders", ("orders",)),
        "email": ("notifications", ("mailer",)),
    }
)
"""Work queue -> who sends its commands, and who takes them."""

BROKER: Final = "broker"
BROKER_PORT: Final = 4222
EDGE: Final = "edge"
EDGE_PORT: Final = 8080
"""HTTP, for whoever is outside of the mesh."""
CONSOLE: Final = "console"
CONSOLE_PORT: Final = 8081
"""HTTP, for whoever runs the mesh."""
GATEWAYS: Final[Mapping[str, int]] = MappingProxyType({EDGE: EDGE_PORT, CONSOLE: CONSOLE_PORT})
"""Name -> base port of what is reached by HTTP."""
SMTP_PORT: Final = 9061
"""Mail server inside the sandbox process."""

HEALTH_DISTANCE: Final = 1000
"""Health of a service is served without certificates this far above its gRPC port."""

METRICS_DISTANCE: Final = 2000
"""`/metrics` of a service is served this far above its gRPC port."""

GATEWAY_METRICS_DISTANCE: Final = 4000
"""Those of gateways, above their ports: 2000 above them another shop has its health."""

MIN_OFFSET: Final = 20
"""Smallest offset but 0, so that two shops share no port; the same between any two."""
MAX_OFFSET: Final = 900
"""Largest offset: the next thousand of ports is another shop's health and metrics."""


def port(name: str, offset: int = 0) -> int:
    """The port of a service, of the broker, the edge or the console, for a port offset.

    Raises:
        KeyError: there is no service of that name.
        ValueError: the offset is neither 0 nor `MIN_OFFSET` to `MAX_OFFSET`.
    """
    if offset and not MIN_OFFSET <= offset <= MAX_OFFSET:
        raise ValueError(f"port offset {offset} is neither 0 nor {MIN_OFFSET} to {MAX_OFFSET}")
    return {BROKER: BROKER_PORT, **GATEWAYS, **SERVICES}[name] + offset


def smtp_port(offset: int = 0) -> int:
    """The port of the sandbox's mail server."""
    return SMTP_PORT + port("sandbox", offset) - SERVICES["sandbox"]


def address(name: str, offset: int = 0) -> str:
    """`host:port` of a service, or of another program. Errors as `port`."""
    return f"{HOST}:{port(name, offset)}"


def addresses(offset: int = 0) -> Addresses:
    """Where everything listens. Errors as `port`."""
    return Addresses(
        services={name: address(name, offset) for name in SERVICES},
        gateways={name: address(name, offset) for name in GATEWAYS},
        broker=address(BROKER, offset),
        mail=f"{HOST}:{smtp_port(offset)}",
        health_distance=HEALTH_DISTANCE,
        metrics_distance=METRICS_DISTANCE,
    )


def gateway_addresses(offset: int = 0) -> Addresses:
    """The same, as the edge and the console have it. Errors as `port`."""
    return replace(addresses(offset), metrics_distance=GATEWAY_METRICS_DISTANCE)


def targets(offset: int = 0, overrides: str = "") -> dict[str, str]:
    """Service name -> `host:port` of every service; `overrides` win, in the form of `MESH_TARGETS`.

    Raises:
        ValueError: an override is not of the form `name=host:port`.
    """
    return {**addresses(offset).services, **settings.targets(overrides)}
