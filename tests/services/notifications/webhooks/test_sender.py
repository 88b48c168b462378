"""Where a delivery really goes: the address that the socket connects to decides."""

import socket

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from services.notifications.webhooks.addresses import Destinations
from services.notifications.webhooks.sender import Answer, Sender
from tests.services.notifications.webhooks.receiver import Receiver


class Rebinding(AbstractResolver):
    """A name server that says something else each time it is asked."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        self.asked += 1
        if not self.answers:
            raise OSError("no such name")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=0,
            )
            for address in self.answers.pop(0)
        ]

    async def close(self) -> None:
        pass


async def post(sender: Sender, url: str) -> Answer:
    return await sender.post(url, b"{}", "id", 1, "v1,x")


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["::ffff:127.0.0.1"], ["0.0.0.0"], ["127.0.0.1", "::1", "169.254.169.254"]],
    ids=str,
)
async def test_rebinding(receiver: Receiver, addresses: list[str]) -> None:
    """A name that stands for an address within, now if not before, is not called."""
    port = receiver.url.rpartition(":")[2]
    resolver = Rebinding(addresses)
    sender = Sender(Destinations((), http=True), resolver)
    url = f"http://rebinding.example:{port}"
    assert Destinations((), http=True).problem(url) == ""
    answer = await post(sender, url)
    await sender.close()
    assert resolver.asked == 1
    assert "is not an address that may be called" in answer.error
    assert receiver.requests == []


async def test_an_address_that_may_be_called_is_taken(receiver: Receiver) -> None:
    """Of several addresses of a name those are called that may be."""
    port = receiver.url.rpartition(":")[2]
    resolver = Rebinding(["10.255.255.1", "127.0.0.1"])
    sender = Sender(Destinations.of("127.0.0.0/8", http=True), resolver)
    answer = await post(sender, f"http://example.com:{port}")
    await sender.close()
    assert (answer.error, len(receiver.requests)) == ("", 1)


async def test_an_address_in_the_url(receiver: Receiver) -> None:
    """An address that is no name is looked at all the same, in every way of writing it."""
    sender = Sender(Destinations((), http=True))
    port = receiver.url.rpartition(":")[2].partition("/")[0]
    for host in ("127.0.0.1", "2130706433", "0x7f.1", "localhost", "[::ffff:127.0.0.1]"):
        answer = await post(sender, f"http://{host}:{port}/hook")
        assert answer.error, host
    await sender.close()
    assert receiver.requests == []


async def test_nobody_there() -> None:
    """What cannot be reached or looked up is an answer in words, not an exception."""
    sender = Sender(Destinations.of("127.0.0.0/8", http=True), Rebinding())
    refused = await post(sender, "http://127.0.0.1:1/")
    assert (refused.status, "Connect call failed" in refused.error) == (0, True)
    assert (await post(sender, "http://nowhere.example/")).error
    await sender.close()
