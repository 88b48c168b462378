"""A client that speaks just enough HTTP/2 to do what no gRPC client would."""

import re
import socket
import struct
from threading import Condition, Thread
from types import TracebackType
from typing import Final, Self

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _WINDOW = 0, 1, 3, 4, 6, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_CANCEL: Final = struct.pack(">I", 8)

Header = tuple[bytes, bytes]


class Connection:
    """One connection, on which streams 1, 3, 5 ... may be opened.

    `ended` has the streams that the server has ended, each with its gRPC status; None: it was
    reset, or the connection closed.
    """

    def __init__(self, address: str, *, window: int = 65_535) -> None:
        """`window`: bytes that the server may send on each stream; none are asked for later."""
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=10)
        self._socket.settimeout(None)
        self._ending = Condition()
        self._statuses: dict[int, int] = {}
        self.ended: dict[int, int | None] = {}
        self.open_ = True
        # No table: asks for headers that are written out.
        settings = struct.pack(">HIHI", 1, 0, 4, window)
        self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, settings))
        Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def open(self, stream: int, path: bytes, body: bytes = b"", *headers: Header) -> None:
        """Call a method with one message."""
        self.send(call(stream, path, body, *headers))

    def send(self, frames: bytes) -> None:
        """Raises OSError: the server has hung up."""
        self._socket.sendall(frames)

    def read_on(self, stream: int, size: int) -> None:
        """Take so many bytes more on a stream."""
        for each in (0, stream):
            self.send(_frame(_WINDOW, 0, each, struct.pack(">I", size)))

    def wait(self, stream: int, seconds: float = 5.0) -> int | None:
        """How a stream has ended, see `ended`. Raises TimeoutError."""
        with self._ending:
            if not self._ending.wait_for(lambda: stream in self.ended or not self.open_, seconds):
                raise TimeoutError
        return self.ended.get(stream)

    def _read(self) -> None:
        with self._socket.makefile("rb") as answer:
            try:
                while len(head := answer.read(9)) == 9:
                    payload = answer.read(int.from_bytes(head[:3], "big"))
                    self._take(head[3], head[4], int.from_bytes(head[5:], "big"), payload)
            except OSError:
                pass
        with self._ending:
            self.open_ = False
            self._ending.notify_all()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (_SETTINGS, _PING) and not flags & _ACK:
            self.send(_frame(kind, _ACK, 0, payload if kind == _PING else b""))
        if kind == _HEADERS and (found := re.search(rb"\x0bgrpc-status[\x01\x02](\d+)", payload)):
            self._statuses[stream] = int(found[1])
        if kind == _RESET or (kind in (_HEADERS, _DATA) and flags & _END_STREAM):
            with self._ending:
                self.ended.setdefault(stream, self._statuses.get(stream))
                self._ending.notify_all()


def ask(address: str, path: bytes, body: bytes, *headers: Header) -> int | None:
    """Call a method with raw headers; return the gRPC status, None when the server hung up.

    Raises:
        TimeoutError: there was no answer within five seconds.
    """
    with Connection(address) as connection:
        connection.open(1, path, body, *headers)
        return connection.wait(1)


def call(stream: int, path: bytes, body: bytes = b"", *headers: Header) -> bytes:
    """The frames of a call with one message."""
    pseudo = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"-"))
    fixed = ((b"te", b"trailers"), (b"content-type", b"application/grpc"))
    block = b"".join(_literal(*header) for header in (*pseudo, *fixed, *headers))
    message = b"\0" + struct.pack(">I", len(body)) + body
    return _frame(_HEADERS, _END_HEADERS, stream, block) + _frame(
        _DATA, _END_STREAM, stream, message
    )


def reset(stream: int) -> bytes:
    """The frame that cancels a call."""
    return _frame(_RESET, 0, stream, _CANCEL)


def _literal(name: bytes, value: bytes) -> bytes:
    assert len(name) < 127
    assert len(value) < 127
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload
