"""Server reflection that also knows methods.

gRPC's own answers "symbol not found" when asked for a method (grpc/grpc#34743),
so `grpcurl describe some.v1.SomeService.SomeMethod` fails. The pool is
wrapped so that a method is found in the file of its service.
"""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection


class _MethodsToo:
    """A descriptor pool that finds the file of a method."""

    def __init__(self, pool: descriptor_pool.DescriptorPool) -> None:
        self._pool = pool

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            found = self._pool.FindServiceByName(service)
            if method not in found.methods_by_name:
                raise
            return found.file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def enable(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Let callers ask which services there are and what their contracts say."""
    names = (*services, reflection.SERVICE_NAME)
    pool: Any = _MethodsToo(descriptor_pool.Default())
    reflection.enable_server_reflection(names, server, pool)
