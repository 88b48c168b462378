"""A contract with a saga, as a test wants it: a trip is booked, paid and told of.

Begin sets off BookHotel, BookFlight, Pay (the pivot) and Tell.
"""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from accord.v1 import policy_pb2
from accord_runtime.saga import Call, Contract, Local

_numbers = itertools.count()

SAGA: Final = """
    saga {
        timeout { seconds: 60 }
        steps: "%(service)s/BookHotel" steps: "%(service)s/BookFlight"
        steps: "%(service)s/Pay" steps: "%(service)s/Tell"
        pivot: "%(service)s/Pay"
    }
"""

KEYED: Final = "timeout { seconds: 5 } idempotency { key: KEY_REQUIRED } "

RPCS: Final[Mapping[str, str]] = {
    "Begin": SAGA,
    "BookHotel": KEYED
    + 'compensation { method: "%(service)s/CancelHotel" fill { field: "id" from: "request.id" } }',
    "CancelHotel": KEYED,
    "BookFlight": KEYED
    + """compensation {
        method: "%(service)s/CancelFlight"
        fill { field: "id" from: "request.id" }
        fill { field: "place.name" from: "response.place.name" }
        fill { field: "place.notes" from: "response.place.notes" }
    }""",
    "CancelFlight": KEYED,
    "Pay": KEYED,
    "Tell": KEYED,
    "Look": KEYED,
}
"""RPC -> its policy."""


@dataclass(frozen=True, slots=True)
class Trips:
    """The names in a contract of its own."""

    package: str

    @property
    def service(self) -> str:
        """Full name of the gRPC service."""
        return f"{self.package}.Trips"

    def rpc(self, name: str) -> str:
        """Full name of an RPC."""
        return f"{self.service}/{name}"

    def request(self, **values: Any) -> Message:
        """What every RPC is asked, and answers."""
        found = descriptor_pool.Default().FindMessageTypeByName(f"{self.package}.Trip")
        message: Message = GetMessageClass(found)(**values)
        return message


def declared(**changes: str) -> Trips:
    """Put the contract into the pool of descriptors, with other policies of some RPCs."""
    trips = Trips(f"trips{next(_numbers)}.v1")
    file = text_format.Parse(
        """
        syntax: "proto3" dependency: "accord/v1/policy.proto"
        message_type { name: "Trip"
            field { name: "id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
            field { name: "price" number: 2 type: TYPE_INT64 label: LABEL_OPTIONAL }
            field { name: "place" number: 3 type: TYPE_MESSAGE type_name: "Place"
                    label: LABEL_OPTIONAL }
        }
        message_type { name: "Place"
            field { name: "name" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
            field { name: "notes" number: 2 type: TYPE_STRING label: LABEL_REPEATED }
        }
        service { name: "Trips" }
        """,
        descriptor_pb2.FileDescriptorProto(),
    )
    file.package, file.name = trips.package, f"{trips.package.replace('.', '/')}/trips.proto"
    for name, policy in {**RPCS, **changes}.items():
        method = file.service[0].method.add(name=name, input_type="Trip", output_type="Trip")
        if name == "Look":
            level = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
            method.options.idempotency_level = level
        text = policy % {"service": trips.service}
        parsed = text_format.Parse(text, policy_pb2.MethodPolicy())
        method.options.Extensions[policy_pb2.policy].CopyFrom(parsed)
    descriptor_pool.Default().Add(file)
    return trips


def steps(trips: Trips, *left_out: str) -> list[Call[Any, Any] | Local]:
    """The steps of a trip in code, without some."""

    async def request(saga_id: str) -> Message:
        return trips.request(id=saga_id, price=7)

    found: list[Call[Any, Any] | Local] = [
        Call("hotel", trips.rpc("BookHotel"), request),
        Call("flight", trips.rpc("BookFlight"), request),
        Local("note", lambda tx, saga_id: None),
        Call("pay", trips.rpc("Pay"), request),
        Call("tell", trips.rpc("Tell"), request, skipped=lambda tx, saga_id: None),
        Local("end", lambda tx, saga_id: None),
    ]
    return [step for step in found if step.name not in left_out]


def contract(trips: Trips, channel: grpc.aio.Channel) -> Contract:
    """The saga of Begin."""
    return Contract(trips.rpc("Begin"), {trips.service: channel})


@dataclass(slots=True)
class Agency:
    """Serves a contract, and answers as a test says.

    Attributes:
        asked: the RPC and the key of each call, and what was asked.
        answers: RPC -> what answers it; by default what was asked.
        refused: RPCs that are refused.
    """

    asked: list[tuple[str, str, Message]] = field(default_factory=list)
    answers: dict[str, Callable[[Any], Awaitable[Any]]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def handler(self, name: str) -> Callable[[Any, Any], Awaitable[Any]]:
        """What answers the calls of an RPC."""

        async def answer(request: Any, context: Any) -> Any:
            key = dict(context.invocation_metadata()).get("idempotency-key", "")
            self.asked.append((name, key, request))
            if name in self.refused:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "never")
            return await self.answers[name](request) if name in self.answers else request

        return answer


@asynccontextmanager
async def served(trips: Trips, agency: Agency) -> AsyncIterator[grpc.aio.Channel]:
    """A server of the contract, and a channel to it."""
    kind = type(trips.request())
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            agency.handler(name),
            request_deserializer=kind.FromString,
            response_serializer=kind.SerializeToString,
        )
        for name in RPCS
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(trips.service, handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(None)
