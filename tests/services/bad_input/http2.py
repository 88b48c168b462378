"""A client that speaks just enough HTTP/2 to send what no gRPC client would."""

import re
import socket
import struct
from typing import Final

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _GOAWAY = 0, 1, 3, 4, 7
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_NO_TABLE: Final = struct.pack(">HI", 1, 0)
"""Asks for headers that are written out."""


def ask(address: str, path: bytes, body: bytes, *headers: tuple[bytes, bytes]) -> int | None:
    """Call a method with raw headers; return the gRPC status, None when the server hung up.

    Raises:
        TimeoutError: there was no answer within five seconds.
    """
    host, _, port = address.rpartition(":")
    pseudo = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"-"))
    fixed = ((b"te", b"trailers"), (b"content-type", b"application/grpc"))
    block = b"".join(_literal(*header) for header in (*pseudo, *fixed, *headers))
    message = b"\0" + struct.pack(">I", len(body)) + body
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(
            _PREFACE
            + _frame(_SETTINGS, 0, 0, _NO_TABLE)
            + _frame(_HEADERS, _END_HEADERS, 1, block)
            + _frame(_DATA, _END_STREAM, 1, message)
        )
        with connection.makefile("rb") as answer:
            while len(head := answer.read(9)) == 9:
                kind, flags = head[3], head[4]
                payload = answer.read(int.from_bytes(head[:3], "big"))
                if kind == _SETTINGS and not flags & _ACK:
                    connection.sendall(_frame(_SETTINGS, _ACK, 0, b""))
                if kind == _HEADERS and (status := _status(payload)) is not None:
                    return status
                if kind in (_RESET, _GOAWAY):
                    return None
    return None


def _status(block: bytes) -> int | None:
    found = re.search(rb"\x0bgrpc-status[\x01\x02](\d+)", block)
    return int(found[1]) if found else None


def _literal(name: bytes, value: bytes) -> bytes:
    assert len(name) < 127
    assert len(value) < 127
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
