"""One version of a set of contracts, read once for all rules.

A method's options are resolved by `accord.contract`, the same code that a server runs at start-up.
"""

import graphlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import Final

from google.protobuf import descriptor as pb
from google.protobuf import descriptor_database, descriptor_pb2, descriptor_pool

from accord.contract import (
    ContractError,
    LimitPolicy,
    MethodPolicy,
    Reading,
    read_event,
    read_method,
)
from accord.policies.breaker import BreakerPolicy
from accord.v1 import edge_pb2, policy_pb2
from accord_checks import Refused
from accord_checks.call_graph import CallGraph
from accord_checks.declarations import Event, File, Rpc, Service

_UNKNOWN: Final = descriptor_pb2.MethodOptions.IDEMPOTENCY_UNKNOWN


class Contracts:
    """One version of a set of contracts.

    What is not stated is off; but with `implied`, for a version to compare with, contracts that
    import the vocabulary of 0.1.0 mean what that release did by leaving it out.

    Raises Refused if the files do not fit together: a truncated or damaged image, an edition that
    the installed protobuf does not know.
    """

    def __init__(
        self,
        protos: Iterable[descriptor_pb2.FileDescriptorProto],
        imports: Iterable[str] = (),
        *,
        implied: bool = False,
    ) -> None:
        foreign = set(imports)
        try:
            files = {proto.name: File(proto, proto.name in foreign) for proto in protos}
            self.files = dict(sorted(files.items()))
            self._pool = _pool(file.proto for file in self.files.values())
        except (TypeError, UnicodeDecodeError) as error:
            raise Refused("the files are damaged: a name in them is not text") from error
        self.services: dict[str, Service] = {}
        self.rpcs: dict[str, Rpc] = {}
        self.events: dict[str, Event] = {}
        # Another extension may have the same number: only Accord's own is read.
        speaks = self.extension(policy_pb2.policy.full_name) is not None
        self._routed = self.extension(edge_pb2.edge.full_name) is not None
        # The vocabulary of 0.1.0, which knew no sagas, implied what today's wants to be stated.
        vocabulary = self.message(policy_pb2.MethodPolicy.DESCRIPTOR.full_name) if speaks else None
        implied = implied and vocabulary is not None and "saga" not in vocabulary.fields_by_name
        for name, file in self.files.items():
            try:
                found = self._pool.FindFileByName(name)
            except (KeyError, TypeError, UnicodeDecodeError) as error:
                raise Refused(f"{name}: {_reason(error)}") from error
            for service in found.services_by_name.values():
                self._add_service(service, file, speaks, implied)
            if speaks:
                for message in _with_nested(found.message_types_by_name.values()):
                    self._add_event(message, file)

    @property
    def own(self) -> Iterator[File]:
        """The files that are judged."""
        return (file for file in self.files.values() if not file.imported)

    @property
    def own_services(self) -> Iterator[Service]:
        """The services that are judged."""
        return (service for service in self.services.values() if not service.file.imported)

    @property
    def own_rpcs(self) -> Iterator[Rpc]:
        """The RPCs that are judged: those that state a policy, or whose service does."""
        return (rpc for service in self.own_services for rpc in service.rpcs if rpc.declared)

    @property
    def own_events(self) -> Iterator[Event]:
        """The events that are judged."""
        return (event for event in self.events.values() if not event.file.imported)

    @cached_property
    def calls(self) -> CallGraph:
        """Who calls whom."""
        return CallGraph(self.rpcs)

    @cached_property
    def comment_lines(self) -> frozenset[str]:
        """Every line of a comment in any file, without spaces around it."""
        comments = chain.from_iterable(file.positions.comments for file in self.files.values())
        return frozenset(" ".join(line.split()) for it in comments for line in it.splitlines())

    def extension(self, name: str) -> pb.FieldDescriptor | None:
        """An extension that the files declare, by its full name."""
        try:
            return self._pool.FindExtensionByName(name)
        except (KeyError, TypeError):
            return None

    def message(self, name: str) -> pb.Descriptor:
        """A message by its full name. Raises KeyError."""
        return self._pool.FindMessageTypeByName(name)

    def file_of(self, message: str) -> File | None:
        """The file that has a message of that name; None if there is none."""
        try:
            return self.files[self.message(message).file.name]
        except KeyError:
            return None

    def _add_service(
        self, found: pb.ServiceDescriptor, file: File, speaks: bool, implied: bool
    ) -> None:
        options = found.GetOptions()
        stated = speaks and options.HasExtension(policy_pb2.service)
        policy = options.Extensions[policy_pb2.service] if stated else None
        service = self.services[found.full_name] = Service(found, file, policy)
        for method in found.methods:
            own = method.GetOptions()
            reading = read_method(method, routed=self._routed) if speaks else _unread(method)
            has = speaks and own.HasExtension(policy_pb2.policy)
            rpc = Rpc(
                method,
                file,
                service,
                own.Extensions[policy_pb2.policy] if has else None,
                _with_implied(reading) if implied and reading.policy.declared else reading,
            )
            service.rpcs.append(rpc)
            self.rpcs[rpc.name] = rpc

    def _add_event(self, found: pb.Descriptor, file: File) -> None:
        options = found.GetOptions()
        if not options.HasExtension(policy_pb2.event):
            return
        problem = None
        try:
            read_event(found)
        except ContractError as error:
            problem = error
        policy = options.Extensions[policy_pb2.event]
        self.events[found.full_name] = Event(found, file, policy, problem)


def reachable(*messages: pb.Descriptor) -> Iterator[pb.Descriptor]:
    """Messages and all that their fields hold, each once; protobuf's own types left out."""
    seen: set[str] = set()
    waiting = list(messages)
    while waiting:
        found = waiting.pop()
        if found.full_name in seen or found.file.package == "google.protobuf":
            continue
        seen.add(found.full_name)
        yield found
        waiting += [inner.message_type for inner in found.fields if inner.message_type is not None]


def field_type(field: pb.FieldDescriptor) -> tuple[object, ...]:
    """What a field holds; equal for fields that hold the same."""
    inner = field.message_type or field.enum_type
    return field.type, field.is_repeated, inner.full_name if inner is not None else ""


def _with_nested(messages: Iterable[pb.Descriptor]) -> Iterator[pb.Descriptor]:
    for message in messages:
        yield message
        yield from _with_nested(message.nested_types)


def _unread(method: pb.MethodDescriptor) -> Reading:
    policy = MethodPolicy(
        f"/{method.containing_service.full_name}/{method.name}",
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        safe=method.GetOptions().idempotency_level != _UNKNOWN,
    )
    return Reading(policy_pb2.MethodPolicy(), policy, ())


def _with_implied(reading: Reading) -> Reading:
    """What a contract comes to under the vocabulary of 0.1.0, with its defaults."""
    policy, stream = reading.policy, reading.policy.stream
    completed = replace(
        policy,
        timeout=policy.timeout or (None if policy.server_streaming else 10.0),
        breaker=policy.breaker or BreakerPolicy(),
        limit=policy.limit or LimitPolicy(),
        max_depth=2 if policy.max_depth is None else policy.max_depth,
        stream=replace(
            stream,
            max_lifetime=3600.0 if math.isinf(stream.max_lifetime) else stream.max_lifetime,
            idle=90.0 if math.isinf(stream.idle) else stream.idle,
            keepalive=30.0 if math.isinf(stream.keepalive) else stream.keepalive,
        ),
    )
    return replace(reading, policy=completed)


def _pool(protos: Iterable[descriptor_pb2.FileDescriptorProto]) -> descriptor_pool.DescriptorPool:
    # Files come in any order; a database is asked for what a file imports.
    database = descriptor_database.DescriptorDatabase()
    imports: dict[str, Iterable[str]] = {}
    for proto in protos:
        database.Add(proto)
        imports[proto.name] = proto.dependency
    try:
        # Asked in a circle, the pool would never stop: it ends the process.
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        raise Refused(f"files import each other: {' -> '.join(error.args[1])}") from error
    return descriptor_pool.DescriptorPool(database)


def _reason(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())
