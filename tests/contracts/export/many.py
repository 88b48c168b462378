"""Contracts as large as a company's, made without a compiler: as many services and RPCs as wanted.

Each RPC states a policy, calls one of the next service, and has a request and a response of its
own; everything has a comment.
"""

from collections.abc import Iterator

from google.protobuf import descriptor_pb2

from accord.v1 import policy_pb2
from tests.contracts import written_contracts

_File = descriptor_pb2.FileDescriptorProto
_STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
_OPTIONAL = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
FIELDS = 6


def image(services: int, rpcs: int) -> descriptor_pb2.FileDescriptorSet:
    """So many services, with so many RPCs among them."""
    numbers = range(services)
    each = [rpcs // services + (number < rpcs % services) for number in numbers]
    files = (_file(number, each[number], services) for number in numbers)
    return descriptor_pb2.FileDescriptorSet(file=[*written_contracts.vocabulary(), *files])


def _file(number: int, rpcs: int, services: int) -> _File:
    package = f"company.area{number % 20}.part{number}.v1"
    file = _File(name=f"{package.replace('.', '/')}/part.proto", package=package, syntax="proto3")
    file.dependency.append(policy_pb2.DESCRIPTOR.name)
    service = file.service.add(name=f"Part{number}Service")
    defaults = service.options.Extensions[policy_pb2.service]
    defaults.owner = f"team-{number % 40}"
    defaults.defaults.timeout.seconds = 2
    defaults.defaults.allow.append("spiffe://company.internal/edge")
    for rpc in range(rpcs):
        name = f"Handle{('Order', 'Invoice', 'Parcel', 'Customer', 'Stock')[rpc % 5]}{rpc}"
        for side in ("Request", "Response"):
            message = file.message_type.add(name=f"{name}{side}")
            for field in range(1, FIELDS + 1):
                message.field.add(
                    name=f"field_{field}", number=field, type=_STRING, label=_OPTIONAL
                )
        method = service.method.add(
            name=name,
            input_type=f".{package}.{name}Request",
            output_type=f".{package}.{name}Response",
        )
        policy = method.options.Extensions[policy_pb2.policy]
        policy.retry.max_attempts = 3
        policy.idempotency.key = policy_pb2.Idempotency.KEY_REQUIRED
        policy.errors.append(f"REASON_{number}")
        after = (number + 1) % services
        called = policy.calls.add(
            method=f"company.area{after % 20}.part{after}.v1.Part{after}Service/HandleOrder0"
        )
        called.timeout.seconds = 1
    for path, what in _places(file):
        comment = f" What {what} is for, and what whoever uses it has to know about it.\n"
        file.source_code_info.location.add(path=path, span=[1, 1, 2], leading_comments=comment)
    return file


def _places(file: _File) -> Iterator[tuple[tuple[int, ...], str]]:
    yield (6, 0), file.service[0].name
    for rpc, method in enumerate(file.service[0].method):
        yield (6, 0, 2, rpc), method.name
    for index, message in enumerate(file.message_type):
        yield (4, index), message.name
        for field, found in enumerate(message.field):
            yield (4, index, 2, field), f"{found.name} of {message.name}"
