"""What contracts declare: files, services, RPCs and events, each with where it is written."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Final, Generic, TypeVar

from google.protobuf import descriptor as pb
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message

from accord.contract import ContractError, MethodPolicy, Reading
from accord.policies.retry import RetryPolicy
from accord.v1 import edge_pb2, policy_pb2
from accord_checks.source_positions import Positions, SourcePath, paths

_NUMBER: Final = policy_pb2.POLICY_FIELD_NUMBER
_EDGE: Final = edge_pb2.EDGE_FIELD_NUMBER
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
    def positions(self) -> Positions:
        """The positions that it records."""
        return Positions(self.proto)

    @cached_property
    def paths(self) -> dict[str, SourcePath]:
        """Where everything in it is that can have a comment, by full name."""
        return dict(paths(self.proto, f"{self.proto.package}." if self.proto.package else ""))

    def place(self, name: str) -> Place:
        """Where the thing of that full name begins. Raises KeyError."""
        return Place(self.name, self.paths[name])

    def nearest(self, path: SourcePath, floor: int, indexes: Sequence[int] = ()) -> Place:
        """The recorded place that says best where `path` is, see `Positions.nearest`."""
        return Place(self.name, self.positions.nearest(path, floor, indexes))


Descriptor = TypeVar("Descriptor", pb.ServiceDescriptor, pb.MethodDescriptor, pb.Descriptor)


@dataclass(frozen=True, eq=False)
class _Declaration(Generic[Descriptor]):
    """What can have an option of Accord."""

    OPTIONS: ClassVar[int]
    """Number of the field that holds the options of its kind."""

    descriptor: Descriptor
    file: File

    @property
    def name(self) -> str:
        """Its full name."""
        return self.descriptor.full_name

    @property
    def short(self) -> str:
        """Its name without what it belongs to."""
        return self.descriptor.name

    @property
    def path(self) -> SourcePath:
        """Its path in its file."""
        return self.file.paths[self.descriptor.full_name]

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self.file.place(self.descriptor.full_name)

    @property
    def option_place(self) -> Place:
        """Where its option is written, or where it begins itself."""
        return self.file.nearest((*self.path, self.OPTIONS, _NUMBER), len(self.path))

    @property
    def comments(self) -> list[str]:
        """The comment above it; empty if there is none."""
        return [self.file.positions.comment(self.path)]

    def _in_option(self, kind: pb.Descriptor, steps: Sequence[str | int], *option: int) -> Place:
        """Where a part of an option is written, by its number: or of a message within it."""
        path, indexes = [*self.path, self.OPTIONS, *option], []
        descriptor: pb.Descriptor | None = kind
        for step in steps:
            if isinstance(step, int):
                indexes.append(len(path))
                path.append(step)
            else:
                found = descriptor.fields_by_name.get(step) if descriptor is not None else None
                if found is None:
                    break
                path.append(found.number)
                descriptor = found.message_type
        return self.file.nearest(tuple(path), len(self.path), indexes)


@dataclass(frozen=True, eq=False)
class Service(_Declaration[pb.ServiceDescriptor]):
    """A service."""

    OPTIONS = descriptor_pb2.ServiceDescriptorProto.OPTIONS_FIELD_NUMBER

    policy: policy_pb2.ServicePolicy | None
    """Its option, if it has one."""
    rpcs: list["Rpc"] = field(default_factory=list)

    @property
    def owner(self) -> str:
        """Who answers for the contract; empty if it does not say."""
        return self.policy.owner if self.policy is not None else ""

    @property
    def stated(self) -> bool:
        """Whether it, or one of its RPCs, states a policy."""
        return self.policy is not None or any(rpc.own is not None for rpc in self.rpcs)

    def at(self, *steps: str | int) -> Place:
        """Where a field of its defaults is written; without one, its option."""
        if not steps:
            return self.option_place
        return self._in_option(policy_pb2.MethodPolicy.DESCRIPTOR, steps, _NUMBER, _DEFAULTS)


@dataclass(frozen=True, eq=False)
class Rpc(_Declaration[pb.MethodDescriptor]):
    """An RPC with its policy."""

    OPTIONS = descriptor_pb2.MethodDescriptorProto.OPTIONS_FIELD_NUMBER

    service: Service
    own: policy_pb2.MethodPolicy | None
    """Its own option, if it has one."""
    reading: Reading

    @property
    def name(self) -> str:
        """Full name as contracts write it, "pkg.Service/Method"."""
        return f"{self.service.name}/{self.short}"

    @property
    def written(self) -> policy_pb2.MethodPolicy:
        """Its options merged with the defaults of its service, right or wrong."""
        return self.reading.written

    @property
    def policy(self) -> MethodPolicy:
        """What its options come to."""
        return self.reading.policy

    @property
    def declared(self) -> bool:
        """Whether it states a policy, or its service does."""
        return self.policy.declared

    @property
    def retry(self) -> RetryPolicy | None:
        """What any client may repeat, as the library does it.

        None for an RPC whose repeat could act twice, and for a stream of requests, which nobody
        keeps.
        """
        repeatable = self.policy.idempotent and not self.policy.client_streaming
        return self.policy.retry if repeatable else None

    @cached_property
    def level(self) -> int:
        """Protobuf's own `idempotency_level`."""
        return self.descriptor.GetOptions().idempotency_level

    @property
    def reads(self) -> bool:
        """Whether it is declared to have no side effects."""
        return self.level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS

    @property
    def unary(self) -> bool:
        """One request, one response."""
        return not (self.descriptor.client_streaming or self.descriptor.server_streaming)

    @property
    def kind(self) -> str:
        """Which side streams: "unary", "a server stream" and so on."""
        return _KINDS[self.descriptor.client_streaming, self.descriptor.server_streaming]

    def at(self, *steps: str | int, inherited: bool = True) -> Place:
        """Where a field of its policy is written: names of fields and indexes of list elements.

        An option of the service's defaults is found there, or, not `inherited`, at the RPC itself:
        the option may be right for its neighbours. What is written nowhere is at the RPC. "edge"
        is the option of that name.
        """
        first = str(steps[0]) if steps else ""
        if first == "edge" and self.descriptor.GetOptions().HasExtension(edge_pb2.edge):
            return self._in_option(edge_pb2.EdgeRoute.DESCRIPTOR, steps[1:], _EDGE)
        if self.own is not None and _has(self.own, first):
            return self._in_option(policy_pb2.MethodPolicy.DESCRIPTOR, steps, _NUMBER)
        defaults = self.service.policy.defaults if self.service.policy is not None else None
        if inherited and defaults is not None and _has(defaults, first):
            return self.service.at(*steps)
        return self.place

    def holder(self, *options: str) -> str:
        """Who states options of its policy: itself if it states one, or its service's defaults."""
        if self.own is not None and any(_has(self.own, option) for option in options):
            return self.short
        return f"the defaults of {self.service.short}"


@dataclass(frozen=True, eq=False)
class Event(_Declaration[pb.Descriptor]):
    """A message that is published."""

    OPTIONS = descriptor_pb2.DescriptorProto.OPTIONS_FIELD_NUMBER

    policy: policy_pb2.EventPolicy
    """Its option, right or wrong."""
    problem: ContractError | None
    """Why the option is invalid, if it is."""

    def at(self, *steps: str | int) -> Place:
        """Where a field of the option is written; without one, where the message begins."""
        return (
            self._in_option(policy_pb2.EventPolicy.DESCRIPTOR, steps, _NUMBER)
            if steps
            else self.place
        )


def _has(message: Message, name: str) -> bool:
    return any(found.name == name for found, _ in message.ListFields())
