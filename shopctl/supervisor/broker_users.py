"""Who may do what at the broker: each service its own subjects, streams and inbox, and no more.

The broker tells nobody why it does not answer: what is missing here is a time-out there, and a line
in the log of who was refused (`accord_runtime.events.broker`).
"""

import json
from collections.abc import Iterable, Iterator
from typing import Final

from accord_runtime.grpc.operator_contracts import POLICY_BUCKET
from services.topology import BROKER, CONSOLE, EDGE, QUEUES, SOURCES
from shopctl.certs import OPERATOR, spiffe_id

BUCKET: Final = POLICY_BUCKET
_POLICY: Final = f"KV_{BUCKET}"


def users(names: Iterable[str]) -> str:
    """The users of these names, as the server's configuration has them."""
    return "\n".join(
        f"    {{ user: {json.dumps(spiffe_id(name))}, permissions: {{"
        f" publish: {json.dumps(publish)}, subscribe: {json.dumps(subscribe)} }} }}"
        for name in names
        if name not in (BROKER, EDGE, CONSOLE, OPERATOR)
        for publish, subscribe in [(sorted(_publish(name)), _subscribe(name))]
    )


def _subscribe(name: str) -> list[str]:
    return [f"_INBOX_{name}.>", f"$KV.{BUCKET}.>"]


def _publish(name: str) -> set[str]:
    """What a service sends: events, commands, its live policy, and requests to JetStream."""
    found = {*_stream(_POLICY), *_consumer(_POLICY, ">"), *_read(_POLICY), f"$JS.FC.{_POLICY}.>"}
    found |= {f"$KV.{BUCKET}.shop.{name}.>", f"{name}.>", *_stream(name.upper())}
    for source in SOURCES.get(name, ()):
        found |= {*_stream(source.upper()), *_consumer(source.upper(), name)}
        found.add(_message(source.upper()))
    for queue, (sender, receivers) in QUEUES.items():
        stream = f"QUEUE_{queue.upper()}"
        if name in (sender, *receivers):
            found |= {*_stream(stream), *_consumer(stream, "*")}
        if name == sender:
            found.add(f"queue.{queue}.*")
    return found


def _stream(stream: str) -> Iterator[str]:
    """To make it, if it is not there, and to know how it is.

    Nobody may update one: that could forget its events, fill it from others' streams, which the
    broker does without asking who may read them, and pass on what is in it under others' subjects.
    """
    for what in ("INFO", "CREATE"):
        yield f"$JS.API.STREAM.{what}.{stream}"


def _consumer(stream: str, name: str) -> Iterator[str]:
    """To make a consumer, to take from it, and to acknowledge."""
    for what in ("INFO", "DELETE", "DURABLE.CREATE", "MSG.NEXT"):
        yield f"$JS.API.CONSUMER.{what}.{stream}.{name}"
    yield (
        f"$JS.API.CONSUMER.CREATE.{stream}.>"
        if name in (">", "*")
        else (f"$JS.API.CONSUMER.CREATE.{stream}.{name}.>")
    )
    yield f"$JS.API.CONSUMER.CREATE.{stream}" + ("" if name == ">" else f".{name}")
    yield f"$JS.ACK.{stream}.{name}" + ("" if name == ">" else ".>")


def _read(stream: str) -> Iterator[str]:
    """To read single messages."""
    yield f"$JS.API.DIRECT.GET.{stream}.>"
    yield _message(stream)


def _message(stream: str) -> str:
    """To ask for one message, which who may make a consumer can have anyhow."""
    return f"$JS.API.STREAM.MSG.GET.{stream}"
