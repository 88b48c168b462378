"""The contracts that the services serve, as compiled: every RPC, every field of its request."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, Final

from google.protobuf import symbol_database
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message

import accord.ops
import shop
from accord.contract import Key, MethodPolicy, method_policy

WELL_KNOWN: Final = "google.protobuf"
VOCABULARY: Final = "accord.v1"
"""Policies inside requests: no rules of validation but those of contracts hold for them."""
LENGTH_DELIMITED: Final = 2

METHOD: Final = "shop.orders.v1.OrderService/ReadEvents"
"""The method that the operator's RPCs are tried with: nothing in the shop depends on it."""


@dataclass(frozen=True, slots=True)
class Rpc:
    """One RPC."""

    descriptor: MethodDescriptor

    @property
    def name(self) -> str:
        """Name to call it by, e.g. "shop.orders.v1.OrderService/GetOrder"."""
        return f"{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def process(self) -> str:
        """Name of the process that serves it, e.g. "orders"."""
        package, process, *_ = self.descriptor.containing_service.full_name.split(".")
        # Every process serves the operator; the orders' has everything that can be operated.
        return str(process) if package == "shop" else "orders"

    @property
    def policy(self) -> MethodPolicy:
        """What its contract says."""
        return method_policy(f"/{self.name}")

    @property
    def keyed(self) -> bool:
        """Whether it cannot be called without an idempotency key."""
        return self.policy.key is Key.REQUIRED

    @property
    def streamed(self) -> bool:
        """Whether the caller may send any number of requests."""
        return bool(self.descriptor.client_streaming)

    @property
    def request(self) -> type[Message]:
        """The class of its request."""
        return class_of(self.descriptor.input_type)

    @property
    def places(self) -> tuple["Place", ...]:
        """Every field of its request, those of nested messages included."""
        return tuple(_places(self.descriptor.input_type, ()))

    def place(self, name: str) -> "Place":
        """The field with this name."""
        return next(place for place in self.places if place.name == name)


@dataclass(frozen=True, slots=True)
class Place:
    """A field somewhere in a request; of a list that lies on the way, in its first item."""

    path: tuple[FieldDescriptor, ...]

    @property
    def field(self) -> FieldDescriptor:
        """The field itself."""
        return self.path[-1]

    @property
    def name(self) -> str:
        """Its path as violations write it, e.g. "items[0].unit_price.currency_code"."""
        parents = (f"{field.name}{'[0]' if field.is_repeated else ''}" for field in self.path[:-1])
        return ".".join((*parents, self.field.name))

    def get(self, message: Any) -> Any:
        """Its value in a request."""
        return getattr(self._parent(message), self.field.name)

    def put(self, message: Any, value: Any) -> None:
        """Give it another value: of a list, other items; None to leave it out."""
        parent = self._parent(message)
        parent.ClearField(self.field.name)
        if self.field.is_repeated:
            getattr(parent, self.field.name).extend(value)
        elif isinstance(value, Message):
            getattr(parent, self.field.name).CopyFrom(value)
        elif value is not None:
            setattr(parent, self.field.name, value)

    def encode(self, payload: bytes) -> bytes:
        """A request with nothing but this field, with these bytes for its value."""
        for field in reversed(self.path):
            tag = field.number << 3 | LENGTH_DELIMITED
            payload = varint(tag) + varint(len(payload)) + payload
        return payload

    def _parent(self, message: Any) -> Any:
        for field in self.path[:-1]:
            message = getattr(message, field.name)
            message = message[0] if field.is_repeated else message
        return message


def varint(value: int) -> bytes:
    """A number of 0 or more as protobuf writes it."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def class_of(descriptor: Descriptor) -> type[Message]:
    """The generated class of a message."""
    found: type[Message] = symbol_database.Default().GetSymbol(descriptor.full_name)
    return found


def _places(message: Descriptor, path: tuple[FieldDescriptor, ...]) -> Iterator[Place]:
    for field in message.fields:
        yield Place((*path, field))
        if field.message_type is not None and field.message_type.file.package not in (
            WELL_KNOWN,
            VOCABULARY,
        ):
            yield from _places(field.message_type, (*path, field))


def _rpcs() -> Iterator[Rpc]:
    for package in (shop, accord.ops):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("_pb2"):
                for service in import_module(module.name).DESCRIPTOR.services_by_name.values():
                    yield from map(Rpc, service.methods)


RPCS: Final = {rpc.name: rpc for rpc in _rpcs()}
"""Every RPC of every service of the shop, and every RPC for its operator, by name."""
