"""`shopctl curl`: a call of any RPC of the contracts, as grpcurl makes it."""

import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import grpc.aio
import typer
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from accord_runtime.settings import is_loopback
from shopctl.certs import OPERATOR
from shopctl.client import Shop, with_shop
from shopctl.errors import CommandError, ExitCode
from shopctl.formatting import format_json
from shopctl.options import ThroughOption, complete_method, find_method, service_of

app = typer.Typer()


@app.command()
@with_shop
async def curl(
    shop: Shop,
    method: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_method,
            metavar="SERVICE/METHOD",
            help="E.g. shop.orders.v1.OrderService/GetOrder, or OrderService/GetOrder.",
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data", "-d", metavar="JSON", help="The request; several for a stream; @: from stdin."
        ),
    ] = "",
    headers: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", metavar="NAME:VALUE", help="Metadata. May be repeated."),
    ] = None,
    identity: Annotated[
        str, typer.Option("--as", metavar="IDENTITY", help="Whose certificate is shown.")
    ] = OPERATOR,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Without TLS, to this host only.")
    ] = False,
    through: ThroughOption = None,
) -> None:
    """Call an RPC by its contract and print what it answers, one line of JSON a message.

    -H idempotency-key:KEY is for RPCs that need one. For grpcurl itself `shopctl up` prints lines.
    """
    found = find_method(method)
    name = f"{found.containing_service.full_name}/{found.name}"
    service = through or service_of(name)
    shop.identity, shop.insecure = identity, insecure
    if insecure:
        if not is_loopback(shop.address(service)):
            raise CommandError(
                f"--insecure is for this host, not for {shop.address(service)}", ExitCode.USAGE
            )
        typer.echo("shopctl: WITHOUT TLS: anybody on this host may read and answer this", err=True)
    requests = list(_requests(sys.stdin.read() if data == "@" else data, found))
    metadata = [_header(text) for text in headers or ()]
    async with shop.calling(service, dict(metadata).get("idempotency-key", "")) as channel:
        async for response in _call(channel, name, found, requests, metadata):
            typer.echo(format_json(response))


def _requests(text: str, method: MethodDescriptor) -> Iterator[Message]:
    """The messages of a text with none, one or several objects of JSON.

    Raises:
        CommandError: there is something else in it, or not as many as the method takes.
    """
    kind = GetMessageClass(method.input_type)
    decoder, found, rest = json.JSONDecoder(), [], text.strip()
    try:
        while rest:
            _, end = decoder.raw_decode(rest)
            found.append(Parse(rest[:end], kind()))
            rest = rest[end:].lstrip()
    except (json.JSONDecodeError, ParseError) as error:
        raise CommandError(f"no {kind.DESCRIPTOR.full_name}: {error}", ExitCode.USAGE) from None
    if not method.client_streaming and len(found) > 1:
        raise CommandError(f"{method.name} takes one request, not {len(found)}", ExitCode.USAGE)
    return iter(found if found or method.client_streaming else [kind()])


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator:
        raise CommandError(f"-H {text!r} is not of the form name:value", ExitCode.USAGE)
    return name.strip().lower(), value.strip()


async def _call(
    channel: grpc.aio.Channel,
    name: str,
    method: MethodDescriptor,
    requests: list[Message],
    metadata: list[tuple[str, str]],
) -> AsyncIterator[Message]:
    sides = (method.client_streaming, method.server_streaming)
    shape = "_".join("stream" if streams else "unary" for streams in sides)
    call: Any = getattr(channel, shape)(
        f"/{name}",
        request_serializer=GetMessageClass(method.input_type).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    started = call(iter(requests) if method.client_streaming else requests[0], metadata=metadata)
    if method.server_streaming:
        async for response in started:
            yield response
    else:
        yield await started
