"""The line to a server on this machine, which can be cut: gRPC itself cannot drop a connection."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Final, ParamSpec

P = ParamSpec("P")

_CHUNK: Final = 64 * 1024
_RESET: Final = struct.pack("ii", 1, 0)  # close with RST, as a crashed peer's kernel does


class TcpProxy:
    """Forwards a free loopback port to `target`, a port too. `port` is the free one."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        _start(self._accept)

    def cut(self) -> None:
        """Reset all connections. New ones may be made at once."""
        with self._lock:
            cut, self._open = self._open, set()
        for each in cut:
            _reset(each)

    def close(self) -> None:
        """Stop listening and reset all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`, which `close` does not
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                _reset(caller)
                continue
            with self._lock:
                self._open |= {caller, server}
            _start(self._pump, caller, server)
            _start(self._pump, server, caller)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Bytes of one direction, until either side ends."""
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                sink.sendall(data)
        with self._lock:
            self._open -= {source, sink}
        _hang_up(source)
        _hang_up(sink)


def _start(target: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    threading.Thread(target=target, args=args, kwargs=kwargs, daemon=True).start()


def _reset(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    _hang_up(connection)


def _hang_up(connection: socket.socket) -> None:
    # A reader in another thread is woken by `shutdown` alone.
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
