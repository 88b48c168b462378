"""Server reflection that also knows methods, and its own newer name.

gRPC's own answers "symbol not found" when asked for a method (grpc/grpc#34743), so
`grpcurl describe some.v1.SomeService.SomeMethod` fails. The pool is wrapped so that a method is
found in the file of its service. gRPC's own is `v1alpha`; newer tools ask for `v1` only, which is
the same but for the name. It is not listed, for there is no descriptor of it here.
"""

from collections.abc import Sequence
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

V1: Final = "grpc.reflection.v1.ServerReflection"


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
    module: Any = reflection  # Its types leave out what is for grpc.aio.
    servicer = module.aio.ReflectionServicer(
        (*services, reflection.SERVICE_NAME), _MethodsToo(descriptor_pool.Default())
    )
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (reflection.SERVICE_NAME, V1):
        generic = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((generic,))
