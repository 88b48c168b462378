"""gRPC-Web: the RPCs that have a route, under their own names, for generated browser clients.

Frames are a flag, a length of four bytes and a message; the status is a last frame with trailers.
Source: PROTOCOL-WEB.md of gRPC.
"""

import base64
import binascii
import re
import struct
from typing import Final
from urllib.parse import quote

from google.protobuf.message import DecodeError, Message
from grpc import StatusCode

from accord.edge.fanout import Event
from accord.edge.http import Request
from accord.edge.problem import EdgeError, Failure, failure

_KINDS: Final = re.compile(r"application/grpc-web(-text)?(?:\+proto)?")
_HEAD: Final = struct.Struct(">BI")
_TRAILERS: Final = 0x80
_COMPRESSED: Final = 0x01
_QUANTA: Final = re.compile(rb"[^=]+={0,2}")


def kind_of(request: Request) -> str | None:
    """The type that a client speaks, and is answered with; None: it is not of gRPC-Web."""
    given = request.headers.get("content-type", "").lower()
    if request.verb != "POST" or not given.startswith("application/grpc-web"):
        return None
    given = given.partition(";")[0].strip()
    return given if _KINDS.fullmatch(given) else None


def message_of(body: bytes, kind: str, message: type[Message]) -> Message:
    """The one message of a request's body. Raises EdgeError."""
    if "-text" in kind:
        try:  # each flush of the client may have ended with padding
            chunks = [base64.b64decode(each, validate=True) for each in _QUANTA.findall(body)]
        except (binascii.Error, ValueError):
            raise _malformed("the body is no base64") from None
        body = b"".join(chunks)
    if len(body) < _HEAD.size:
        raise _malformed("the body has no frame")
    flag, size = _HEAD.unpack_from(body)
    if flag & _COMPRESSED:
        text = "messages are not to be compressed"
        raise EdgeError(415, StatusCode.UNIMPLEMENTED, "COMPRESSED", text)
    if flag or len(body) != _HEAD.size + size:
        raise _malformed("the body is not one frame with a message")
    try:
        return message.FromString(body[_HEAD.size :])
    except DecodeError:
        raise _malformed(f"the message is no {message.DESCRIPTOR.full_name}") from None


def _malformed(text: str) -> EdgeError:
    return EdgeError(400, StatusCode.INVALID_ARGUMENT, "INVALID_FRAME", text)


class FrameWriter:
    """Writes one answer, whole or as a stream."""

    keepalive = b""  # there is nothing that a client would not take for a message

    def __init__(self, kind: str, domain: str) -> None:
        self.form = kind
        self._domain = domain

    async def begin(self, request: Request, *, empty: bool = False) -> bool:
        """Status and headers; that of gRPC comes at the end."""
        headers = [(b"content-type", self.form.encode()), (b"cache-control", b"no-store")]
        await request.begin(200, headers)
        return True

    def event(self, event: Event) -> bytes:
        """A message of a stream."""
        return self.message(event.message)

    def message(self, message: Message) -> bytes:
        """A message."""
        return self._frame(0, message.SerializeToString())

    def end(self, error: BaseException | None) -> bytes:
        """The status of the call."""
        return self.trailers(None if error is None else failure(error, self._domain))

    def trailers(self, failed: Failure | None) -> bytes:
        """The status of a call; None: it is well."""
        if failed is None:
            return self._frame(_TRAILERS, b"grpc-status: 0\r\n")
        status = failed.status
        lines = [f"grpc-status: {status.code}"]
        if status.message:
            lines.append(f"grpc-message: {quote(status.message, safe=_PLAIN)}")
        if status.details:
            raw = base64.b64encode(status.SerializeToString()).decode().rstrip("=")
            lines.append(f"grpc-status-details-bin: {raw}")
        return self._frame(_TRAILERS, "".join(f"{line}\r\n" for line in lines).encode())

    def _frame(self, flag: int, raw: bytes) -> bytes:
        frame = _HEAD.pack(flag, len(raw)) + raw
        return base64.b64encode(frame) if "-text" in self.form else frame


_PLAIN: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
"""What a message of gRPC has as it is; the rest is percent-encoded."""
