"""One client's stream of xDS, state of the world: what it wants, has, and has refused. Pure.

Source: the xDS transport protocol, "SotW"; what gRPC does of it: gRFC A27, A46.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from google.protobuf.any_pb2 import Any

from accord.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES
from accord.xds.v3 import discovery_pb2 as pb

MAX_NAMES: Final = 1000
"""Resources of one type that one client may want."""

TYPES: Final = (CLUSTER, ENDPOINTS, LISTENER, ROUTES)
"""In the order in which they are pushed: what is referred to comes before what refers to it."""

Find = Callable[[str, str], Any | None]
"""Given a type and a name, the resource as it is now."""


class TooMany(Exception):
    """A client wants more than MAX_NAMES."""


@dataclass(slots=True)
class _Wanted:
    names: tuple[str, ...] = ()
    sent: str | None = None
    """Version of what was sent last."""
    nonce: str = ""
    refused: str = ""
    """Why it has refused what was sent last."""


class Subscription:
    """What one stream has been sent and has acknowledged."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._wanted: dict[str, _Wanted] = {}
        self._sent = 0

    def asked(self, request: pb.DiscoveryRequest) -> list[pb.DiscoveryResponse]:
        """What a request is to be answered with: nothing, if it only acknowledges.

        Raises TooMany.
        """
        if request.type_url not in TYPES:
            return []
        if len(request.resource_names) > MAX_NAMES:
            raise TooMany
        wanted = self._wanted.setdefault(request.type_url, _Wanted())
        if request.response_nonce != wanted.nonce:
            return []  # of an older answer; another request follows
        # Without it, what was sent is acknowledged.
        wanted.refused = request.error_detail.message if request.response_nonce else ""
        wanted.names = tuple(sorted(request.resource_names))
        return self._news(request.type_url, wanted)

    def pushed(self) -> list[pb.DiscoveryResponse]:
        """What is to be sent after resources have changed."""
        return [
            response
            for kind in TYPES
            if kind in self._wanted
            for response in self._news(kind, self._wanted[kind])
        ]

    def refusals(self) -> dict[str, str]:
        """By type, why the client has refused what it was sent last."""
        return {kind: each.refused for kind, each in self._wanted.items() if each.refused}

    def _news(self, kind: str, wanted: _Wanted) -> list[pb.DiscoveryResponse]:
        resources = [found for name in wanted.names if (found := self._find(kind, name))]
        version = _version(wanted.names, resources)
        if version == wanted.sent:
            return []  # also if it was refused: it would be again
        self._sent += 1
        wanted.sent, wanted.nonce = version, str(self._sent)
        return [
            pb.DiscoveryResponse(
                version_info=version, resources=resources, type_url=kind, nonce=wanted.nonce
            )
        ]


def _version(names: tuple[str, ...], resources: list[Any]) -> str:
    """What changes with the names or the resources; the same after a restart."""
    digest = hashlib.sha256("\n".join(names).encode())
    for each in resources:
        digest.update(each.value)
    return digest.hexdigest()[:16]
