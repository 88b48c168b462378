"""What contracts consist of: files, services, RPCs and events, each with where it is written."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from google.protobuf import descriptor as pb
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message

from accord.contract import ContractError, EventPolicy, MethodPolicy, Reading
from accord.v1 import policy_pb2
from accord_checks.location import Locations, SourcePath

_NUMBER: Final = policy_pb2.POLICY_FIELD_NUMBER
_Method = descriptor_pb2.MethodOptions
_METHOD_OPTIONS: Final = descriptor_pb2.MethodDescriptorProto.OPTIONS_FIELD_NUMBER
_SERVICE_OPTIONS: Final = descriptor_pb2.ServiceDescriptorProto.OPTIONS_FIELD_NUMBER
_MESSAGE_OPTIONS: Final = descriptor_pb2.DescriptorProto.OPTIONS_FIELD_NUMBER
_DEFAULTS: Final = policy_pb2.ServicePolicy.DEFAULTS_FIELD_NUMBER
_KINDS: Final = {
    (False, False): "unary",
    (True, False): "a client stream",
    (False, True): "a server stream",
    (True, True): "a stream both ways",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is written."""

    file: str
    path: SourcePath


@dataclass(frozen=True, eq=False)
class File:
    """A `.proto` file."""

    proto: descriptor_pb2.FileDescriptorProto
    imported: bool
    """Somebody else's: read, but not judged."""

    @property
    def name(self) -> str:
        """Its path below the root of its module."""
        return self.proto.name

    @cached_property
    def locations(self) -> Locations:
        """The positions that it records."""
        return Locations(self.proto)

    def place(self, path: SourcePath, floor: int | None = None) -> Place:
        """The nearest recorded place to `path`, not further out than `floor` numbers."""
        return Place(self.name, self.locations.nearest(path, len(path) if floor is None else floor))


@dataclass(frozen=True, eq=False)
class Service:
    """A service."""

    descriptor: pb.ServiceDescriptor
    file: File
    path: SourcePath
    policy: policy_pb2.ServicePolicy | None
    """Its option, if it has one."""
    rpcs: list["Rpc"] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Full name, "pkg.Service"."""
        return self.descriptor.full_name

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self.file.place(self.path)

    @property
    def option_place(self) -> Place:
        """Where its option is written, or the service itself."""
        return self.file.place((*self.path, _SERVICE_OPTIONS, _NUMBER), len(self.path))

    @property
    def comment(self) -> str:
        """The comment above it."""
        return self.file.locations.comment(self.path)

    @property
    def stated(self) -> bool:
        """Whether it, or one of its RPCs, states a policy."""
        return self.policy is not None or any(rpc.own is not None for rpc in self.rpcs)


@dataclass(frozen=True, eq=False)
class Rpc:
    """An RPC with its policy."""

    descriptor: pb.MethodDescriptor
    service: Service
    path: SourcePath
    own: policy_pb2.MethodPolicy | None
    """Its own option, if it has one."""
    reading: Reading

    @property
    def name(self) -> str:
        """Full name as contracts write it, "pkg.Service/Method"."""
        return f"{self.service.name}/{self.descriptor.name}"

    @property
    def short(self) -> str:
        """Name without the service."""
        return self.descriptor.name

    @property
    def written(self) -> policy_pb2.MethodPolicy:
        """Its options merged with the defaults of its service, right or wrong."""
        return self.reading.written

    @property
    def policy(self) -> MethodPolicy:
        """What its options come to."""
        return self.reading.policy

    @cached_property
    def level(self) -> int:
        """Protobuf's own `idempotency_level`."""
        return self.descriptor.GetOptions().idempotency_level

    @property
    def reads(self) -> bool:
        """Whether it is declared to have no side effects."""
        return self.level == _Method.NO_SIDE_EFFECTS

    @property
    def unary(self) -> bool:
        """One request, one response."""
        return not (self.descriptor.client_streaming or self.descriptor.server_streaming)

    @property
    def kind(self) -> str:
        """Which side streams: "unary", "a server stream" and so on."""
        return _KINDS[self.descriptor.client_streaming, self.descriptor.server_streaming]

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self.service.file.place(self.path)

    @property
    def comments(self) -> tuple[str, str]:
        """The comments above it and above its service."""
        return self.service.file.locations.comment(self.path), self.service.comment

    def at(self, *steps: str | int, inherited: bool = True) -> Place:
        """Where a field of its policy is written: names of fields and indexes of list elements.

        An option of the service's defaults is found there, or, not `inherited`, at the RPC itself:
        the option may be right for its neighbours. What is written nowhere is at the RPC.
        """
        first = str(steps[0])
        if self.own is not None and _has(self.own, first):
            return self._inside((*self.path, _METHOD_OPTIONS, _NUMBER), len(self.path), steps)
        defaults = self.service.policy.defaults if self.service.policy is not None else None
        if inherited and defaults is not None and _has(defaults, first):
            prefix = (*self.service.path, _SERVICE_OPTIONS, _NUMBER, _DEFAULTS)
            return self._inside(prefix, len(self.service.path), steps)
        return self.place

    def holder(self, *options: str) -> str:
        """Who states options of its policy: itself if it states one, or its service's defaults."""
        if self.own is not None and any(_has(self.own, option) for option in options):
            return self.short
        return f"the defaults of {self.service.descriptor.name}"

    @property
    def option_place(self) -> Place:
        """Where its option is written, or the RPC itself."""
        return self.service.file.place((*self.path, _METHOD_OPTIONS, _NUMBER), len(self.path))

    def _inside(self, prefix: SourcePath, floor: int, steps: tuple[str | int, ...]) -> Place:
        path, indexes = list(prefix), set()
        descriptor: pb.Descriptor | None = policy_pb2.MethodPolicy.DESCRIPTOR
        for step in steps:
            if isinstance(step, int):
                indexes.add(len(path))
                path.append(step)
            else:
                found = descriptor.fields_by_name.get(step) if descriptor is not None else None
                if found is None:
                    break
                path.append(found.number)
                descriptor = found.message_type
        file = self.service.file
        return Place(file.name, file.locations.nearest(tuple(path), floor, indexes))


@dataclass(frozen=True, eq=False)
class Event:
    """A message that is published."""

    descriptor: pb.Descriptor
    file: File
    path: SourcePath
    raw: policy_pb2.EventPolicy
    policy: EventPolicy | None
    """None if the option is invalid."""
    problem: ContractError | None

    @property
    def name(self) -> str:
        """Full name of the message."""
        return self.descriptor.full_name

    @property
    def place(self) -> Place:
        """Where the message begins."""
        return self.file.place(self.path)

    @property
    def option_place(self) -> Place:
        """Where its option is written."""
        return self.file.place((*self.path, _MESSAGE_OPTIONS, _NUMBER), len(self.path))

    @property
    def comment(self) -> str:
        """The comment above the message."""
        return self.file.locations.comment(self.path)

    def at(self, name: str) -> Place:
        """Where a field of the option is written, or the option itself."""
        number = policy_pb2.EventPolicy.DESCRIPTOR.fields_by_name[name].number
        return self.file.place((*self.path, _MESSAGE_OPTIONS, _NUMBER, number), len(self.path))


def _has(message: Message, name: str) -> bool:
    return any(found.name == name for found, _ in message.ListFields())
