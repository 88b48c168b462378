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
    # With a certificate that is not accepted; a connection lost in mid-handshake says otherwise.
    StatusCode.UNAVAILABLE: ("handshake failed (TSI_PROTOCOL", "metadata from plugin failed"),
}

_LOST: Final = ("Socket closed", "onnection reset", "roken pipe", "Cancelling all calls", "GOAWAY",
                "imeout", "Stream removed", "ransport closed", "ndpoint closed")  # fmt: skip


def own(code: StatusCode, details: str) -> bool:
    """Whether the caller's own side has made it, or a message of the call breaks a bound."""
    return any(text in details for text in _OWN.get(code, ()))


def lost(code: StatusCode, details: str) -> bool:
    """Whether a connection was lost, which ends all its calls.

    Not if there was none to be had: that is told to each call anew.
    """
    return (
        code is StatusCode.UNAVAILABLE
        and any(text in details for text in _LOST)
        and "failed to connect" not in details
    )


def broken(code: StatusCode, details: str) -> bool:
    """Whether the transport broke below the status: nobody's answer, so nobody's decision."""
    return (code is StatusCode.INTERNAL and "RST_STREAM" in details) or (
        code is StatusCode.UNKNOWN and details == "Stream removed"
    )
