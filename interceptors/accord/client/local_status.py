"""Statuses that no server has decided: gRPC (1.80 to 1.85) marks them by their text alone."""

from typing import Final

from grpc import StatusCode

UNDECODABLE: Final = "the response cannot be decoded"
"""Message of INTERNAL where the library itself decodes."""

_OWN: Final[dict[StatusCode, tuple[str, ...]]] = {
    # Too much for either side, in either direction.
    StatusCode.RESOURCE_EXHAUSTED: ("message larger than max", "metadata size exceeds"),
    StatusCode.INTERNAL: (
        "Exception serializing request!",
        "Exception deserializing response!",
        "Invalid metadata",
        UNDECODABLE,
    ),
    StatusCode.UNKNOWN: ("Exception iterating requests!",),
    StatusCode.UNAVAILABLE: ("metadata from plugin failed",),
}

# Of a certificate that is not accepted; a connection lost in mid-handshake says otherwise.
_REFUSED: Final = (
    "handshake failed (TSI_PROTOCOL",
    "Failed to create security handshaker",  # a key that does not fit
    "verification check failed",  # another host, or another identity
)

_UNCONNECTED: Final = ("failed to connect to all addresses", "connections to all backends failing")

_LOST: Final = ("Socket closed", "onnection reset", "roken pipe", "Cancelling all calls", "GOAWAY",
                "max connection age",  # which the server ends by itself
                "imeout", "Stream removed", "ransport closed", "ndpoint closed")  # fmt: skip


def own(code: StatusCode, details: str) -> bool:
    """Whether the caller's own side has made it, or a message of the call breaks a bound."""
    return any(text in details for text in _OWN.get(code, ())) or refused(code, details)


def refused(code: StatusCode, details: str) -> bool:
    """Whether the caller's own side has refused to shake hands."""
    return code is StatusCode.UNAVAILABLE and any(text in details for text in _REFUSED)


def handshake(code: StatusCode, details: str) -> str:
    """`details`, if they tell of a handshake that has failed, or would do so over TLS."""
    unwelcome = code is StatusCode.UNAVAILABLE and turned_away(details)
    return details if unwelcome or refused(code, details) else ""


def turned_away(details: str) -> bool:
    """Whether a server has closed a connection before its first word.

    After a TLS handshake that is how it refuses the client's certificate: with TLS 1.3 the client
    is done by then. Without TLS it is a server, or what stands before it, that breaks down.
    """
    said = details.partition(" (xDS node ID:")[0]  # which xDS adds
    return said.endswith(": Socket closed") and _unconnected(details)


def _unconnected(details: str) -> bool:
    return any(text in details for text in _UNCONNECTED)


def lost(code: StatusCode, details: str) -> bool:
    """Whether a connection was lost, which ends all its calls.

    Not if there was none to be had: that is told to each call anew.
    """
    return (
        code is StatusCode.UNAVAILABLE
        and any(text in details for text in _LOST)
        and not _unconnected(details)
    )


def broken(code: StatusCode, details: str) -> bool:
    """Whether the transport broke below the status: nobody's answer, so nobody's decision."""
    return (code is StatusCode.INTERNAL and "RST_STREAM" in details) or (
        code is StatusCode.UNKNOWN and details == "Stream removed"
    )
