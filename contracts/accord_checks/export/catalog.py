"""The services and events of an image, with their policies resolved: what every export reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf import descriptor as pb
from google.protobuf import descriptor_pb2, unknown_fields, wrappers_pb2

from accord.contract import EventPolicy, MethodPolicy
from accord.policies.retry import RetryPolicy
from accord_checks import elements, model
from accord_checks.location import SourcePath
from accord_checks.refused import Refused

_File = descriptor_pb2.FileDescriptorProto
_Message = descriptor_pb2.DescriptorProto
_Enum = descriptor_pb2.EnumDescriptorProto
_Service = descriptor_pb2.ServiceDescriptorProto

# buf marks in an image what it only imports: `ImageFileExtension {bool is_import = 1}`.
_BUF_EXTENSION: Final = 8042
WELL_KNOWN: Final = "google/protobuf/"
"""Where protobuf's own files are."""


@dataclass(frozen=True, slots=True)
class Method:
    """An RPC."""

    descriptor: pb.MethodDescriptor
    policy: MethodPolicy
    comment: str

    @property
    def service(self) -> str:
        """Full name of its service, "pkg.Service"."""
        name: str = self.descriptor.containing_service.full_name
        return name

    @property
    def name(self) -> str:
        """Its name within the service."""
        name: str = self.descriptor.name
        return name

    @property
    def retry(self) -> RetryPolicy | None:
        """What any client may repeat, as the library does it.

        None for an RPC whose repeat could act twice, and for a stream of requests, which nobody
        keeps.
        """
        policy = self.policy
        repeatable = policy.idempotent and not policy.client_streaming
        return policy.retry if repeatable else None


@dataclass(frozen=True, slots=True)
class Service:
    """A service and its RPCs, in the order of its file."""

    descriptor: pb.ServiceDescriptor
    owner: str
    """Who answers for the contract; empty if it does not say."""
    comment: str
    methods: tuple[Method, ...]

    @property
    def name(self) -> str:
        """Its full name, "pkg.Service"."""
        name: str = self.descriptor.full_name
        return name


@dataclass(frozen=True, slots=True)
class Event:
    """A message that is published."""

    descriptor: pb.Descriptor
    policy: EventPolicy
    comment: str
    publishers: tuple[str, ...]
    """The services of the event's package, by full name: it is theirs to publish."""

    @property
    def name(self) -> str:
        """Full name of the message."""
        name: str = self.descriptor.full_name
        return name


class Catalog:
    """What an image holds. Services are sorted by name, events by subject and version."""

    def __init__(self, image: descriptor_pb2.FileDescriptorSet) -> None:
        """Read an image.

        Raises:
            Refused: it is incomplete, or a policy in it is invalid.
        """
        imported = (file.name for file in image.file if _imported(file))
        contracts = model.Contracts(image.file, imported)
        self._comments: dict[str, str] = {}
        for file in contracts.files.values():
            for name, path in _named(file.proto):
                if comment := file.locations.comment(path):
                    self._comments[name] = _clean(comment)
        services = sorted(contracts.own_services, key=lambda service: service.name)
        self.services = tuple(self._service(service) for service in services)
        events = [self._event(event) for event in contracts.own_events]
        self.events = tuple(sorted(events, key=lambda it: (it.policy.subject, it.policy.version)))

    def methods(self) -> Iterator[Method]:
        """All RPCs, service by service."""
        for service in self.services:
            yield from service.methods

    def comment(self, name: str) -> str:
        """What the contract says above the thing of that full name; empty if it says nothing.

        A value of an enum is named after it, "pkg.Color.COLOR_RED".
        """
        return self._comments.get(name, "")

    def _service(self, service: elements.Service) -> Service:
        owner = service.policy.owner if service.policy is not None else ""
        methods = tuple(self._method(rpc) for rpc in service.rpcs)
        return Service(service.descriptor, owner, self.comment(service.name), methods)

    def _method(self, rpc: elements.Rpc) -> Method:
        if rpc.reading.problems:
            raise Refused(str(rpc.reading.problems[0]))
        return Method(rpc.descriptor, rpc.policy, self.comment(rpc.descriptor.full_name))

    def _event(self, event: elements.Event) -> Event:
        if event.policy is None:
            raise Refused(str(event.problem))
        package = event.descriptor.file.package
        publishers = tuple(
            service.name for service in self.services if service.descriptor.file.package == package
        )
        return Event(event.descriptor, event.policy, self.comment(event.name), publishers)


def _clean(comment: str) -> str:
    """A comment without the one space that follows `//` in each of its lines."""
    return "\n".join(line.removeprefix(" ").rstrip() for line in comment.splitlines()).strip()


def _imported(file: _File) -> bool:
    """Whether a file is somebody else's: marked so by buf, or one of protobuf's own."""
    for field in unknown_fields.UnknownFieldSet(file):  # type: ignore[attr-defined]
        if field.field_number == _BUF_EXTENSION:
            # A BoolValue has the same wire form.
            return wrappers_pb2.BoolValue.FromString(field.data).value
    return file.name.startswith(WELL_KNOWN)


def _named(file: _File) -> Iterator[tuple[str, SourcePath]]:
    """The full name of everything in a file that can have a comment, and where that is kept."""
    prefix = f"{file.package}." if file.package else ""
    for number, service in enumerate(file.service):
        path = (_File.SERVICE_FIELD_NUMBER, number)
        yield prefix + service.name, path
        for index, method in enumerate(service.method):
            name = f"{prefix}{service.name}.{method.name}"
            yield name, (*path, _Service.METHOD_FIELD_NUMBER, index)
    for number, message in enumerate(file.message_type):
        yield from _in_message(message, prefix, (_File.MESSAGE_TYPE_FIELD_NUMBER, number))
    for number, enum in enumerate(file.enum_type):
        yield from _in_enum(enum, prefix, (_File.ENUM_TYPE_FIELD_NUMBER, number))


def _in_message(
    message: _Message, prefix: str, path: SourcePath
) -> Iterator[tuple[str, SourcePath]]:
    name = prefix + message.name
    yield name, path
    for number, field in enumerate(message.field):
        yield f"{name}.{field.name}", (*path, _Message.FIELD_FIELD_NUMBER, number)
    for number, inner in enumerate(message.nested_type):
        yield from _in_message(
            inner, f"{name}.", (*path, _Message.NESTED_TYPE_FIELD_NUMBER, number)
        )
    for number, enum in enumerate(message.enum_type):
        yield from _in_enum(enum, f"{name}.", (*path, _Message.ENUM_TYPE_FIELD_NUMBER, number))


def _in_enum(enum: _Enum, prefix: str, path: SourcePath) -> Iterator[tuple[str, SourcePath]]:
    name = prefix + enum.name
    yield name, path
    for number, value in enumerate(enum.value):
        yield f"{name}.{value.name}", (*path, _Enum.VALUE_FIELD_NUMBER, number)
