"""The sandbox as its callers see it, over gRPC."""

import asyncio
import smtplib
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from accord_runtime.database import Tx
from accord_runtime.grpc.ids import uuid7
from services.sandbox import store
from services.sandbox.servicer import PAGE
from services.topology import HOST, smtp_port
from shop.common.v1.address_pb2 import Address
from shop.common.v1.money_pb2 import Money
from shop.sandbox.v1 import sandbox_pb2 as pb
from tests.services.sandbox.world import (
    DEADLINE,
    UNAVAILABLE,
    World,
    eventually,
    failure,
    refused,
    running_process,
    running_world,
    world_at,
)
from tests.support.ports import free_offset
from tests.support.shop import Shop

pytestmark = pytest.mark.asyncio(loop_scope="module")

CARDS, CARRIER = pb.PARTY_CARD_PROCESSOR, pb.PARTY_CARRIER
PRICE = Money(minor_units=1999, currency_code="EUR")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sandbox(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Shop, World]]:
    """One sandbox for all tests of this module; each uses keys of its own."""
    async with running_world(tmp_path_factory.mktemp("sandbox")) as both:
        yield both


@pytest.fixture
def world(sandbox: tuple[Shop, World]) -> World:
    return sandbox[1]


@pytest.fixture
def key() -> str:
    return uuid7()


async def capture(
    world: World, key: str, token: str = "tok_good", amount: Money = PRICE, timeout: float = 10
) -> str:
    request = pb.CaptureRequest(key=key, reference=key, amount=amount, card_token=token)
    return (await world.cards.Capture(request, timeout=timeout)).capture_id


async def reverse(world: World, key: str) -> pb.ReverseResponse:
    return await world.cards.Reverse(pb.ReverseRequest(key=key, reference=key), timeout=DEADLINE)


async def book(world: World, key: str, country: str = "DE", units: int = 2) -> str:
    ship_to = Address(name="Ada", line1="Weg 1", city="Ulm", country_code=country)
    request = pb.BookParcelRequest(key=key, reference=key, ship_to=ship_to, units=units)
    return (await world.carrier.BookParcel(request, timeout=DEADLINE)).tracking_number


async def cancel(world: World, key: str) -> int:
    request = pb.CancelParcelRequest(key=key, reference=key)
    return (await world.carrier.CancelParcel(request, timeout=DEADLINE)).units


async def test_a_capture_is_in_the_ledger(world: World, key: str) -> None:
    """Money that is taken and given back shows with key, reference and amount."""
    before = time.time()
    first, again = await capture(world, key), await capture(world, key)
    given_back, given_back_again = await reverse(world, key), await reverse(world, key)
    taken, back = await world.ledger(key)

    assert first == again
    assert given_back == given_back_again == pb.ReverseResponse(amount=PRICE)
    assert (taken.kind, taken.key, taken.amount) == (pb.ENTRY_KIND_CAPTURED, key, PRICE)
    assert (back.kind, back.key, back.amount) == (pb.ENTRY_KIND_REVERSED, key, PRICE)
    assert before - 1 <= taken.at.ToMicroseconds() / 1e6 <= time.time() + 1
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await capture(world, key)
    assert failure(late) == refused("KEY_REVERSED")


async def test_an_unknown_key_is_blocked(world: World, key: str) -> None:
    """A reversal that comes first gives nothing back and lets nothing be taken later."""
    assert not (await reverse(world, key)).HasField("amount")
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await capture(world, key)

    assert failure(late) == refused("KEY_REVERSED")
    assert await world.kinds(key) == []


async def test_a_key_is_for_one_amount(world: World, key: str) -> None:
    """A repeat with another amount is a mistake of the caller, not a second capture."""
    await capture(world, key)
    with pytest.raises(grpc.aio.AioRpcError) as mistaken:
        await capture(world, key, amount=Money(minor_units=1, currency_code="EUR"))

    assert failure(mistaken)[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert await world.kinds(key) == [pb.ENTRY_KIND_CAPTURED]


@pytest.mark.parametrize("token", ["tok_declined", "tok_no_funds"])
async def test_bad_cards_are_declined(world: World, key: str, token: str) -> None:
    """The tokens of bad cards are declined, and stay so for a good card under the same key."""
    for each in (token, token, "tok_good"):
        with pytest.raises(grpc.aio.AioRpcError) as declined:
            await capture(world, key, each)
        assert failure(declined) == refused("CARD_DECLINED")

    assert not (await reverse(world, key)).HasField("amount")
    assert await world.kinds(key) == []


async def test_a_slow_card_takes_two_seconds(world: World, key: str) -> None:
    """`tok_slow` works, after 2 s."""
    began = time.monotonic()
    await capture(world, key, "tok_slow")

    assert 2.0 <= time.monotonic() - began < 4.0


async def test_a_flaky_card_fails_twice(world: World, key: str) -> None:
    """`tok_flaky` fails twice for each key, without doing anything, and then works."""
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await capture(world, key, "tok_flaky")
        assert failure(failed) == UNAVAILABLE
    assert await world.kinds(key) == []

    await capture(world, key, "tok_flaky")
    assert await world.kinds(key) == [pb.ENTRY_KIND_CAPTURED]


async def test_a_lost_answer_was_a_capture(world: World, key: str) -> None:
    """`tok_lost` takes the money, loses the first answer, and gives it to a repeat."""
    with pytest.raises(grpc.aio.AioRpcError) as lost:
        await capture(world, key, "tok_lost")

    assert failure(lost) == UNAVAILABLE
    assert await capture(world, key, "tok_lost")
    assert await world.kinds(key) == [pb.ENTRY_KIND_CAPTURED]


async def test_a_parcel_is_in_the_ledger(world: World, key: str) -> None:
    """A booking and its cancellation show with their units."""
    first, again = await book(world, key), await book(world, key)
    assert first == again
    assert [await cancel(world, key), await cancel(world, key)] == [2, 2]
    booked, cancelled = await world.ledger(key)

    assert (booked.kind, booked.units) == (pb.ENTRY_KIND_BOOKED, 2)
    assert (cancelled.kind, cancelled.units) == (pb.ENTRY_KIND_CANCELLED, 2)
    assert not booked.HasField("amount")
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await book(world, key)
    assert failure(late) == refused("KEY_CANCELLED")


async def test_an_unknown_parcel_is_blocked(world: World, key: str) -> None:
    """A cancellation that comes first keeps its booking from succeeding."""
    assert await cancel(world, key) == 0
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await book(world, key)

    assert failure(late) == refused("KEY_CANCELLED")


async def test_antarctica_is_not_served(world: World, key: str) -> None:
    """The carrier refuses country AQ, and keeps to its answer."""
    for country in ("AQ", "DE"):
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await book(world, key, country)
        assert failure(away) == refused("DESTINATION_NOT_SERVED")

    assert await cancel(world, key) == 0
    assert await world.kinds(key) == []


async def test_decline_on_command(world: World, key: str) -> None:
    """DECLINE makes the processor decline a good card, and the carrier refuse any country."""
    await world.behave(CARDS, pb.BEHAVIOR_DECLINE)
    await world.behave(CARRIER, pb.BEHAVIOR_DECLINE)
    with pytest.raises(grpc.aio.AioRpcError) as declined:
        await capture(world, key)
    with pytest.raises(grpc.aio.AioRpcError) as away:
        await book(world, key)

    assert failure(declined) == refused("CARD_DECLINED")
    assert failure(away) == refused("DESTINATION_NOT_SERVED")


async def test_a_parcel_may_be_on_its_way(world: World, key: str) -> None:
    """DECLINE makes the carrier refuse to cancel a booked parcel, for good."""
    await book(world, key)
    await world.behave(CARRIER, pb.BEHAVIOR_DECLINE)
    for _ in range(2):
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await cancel(world, key)
        assert failure(gone) == refused("PARCEL_HANDED_OVER")

    assert await world.kinds(key) == [pb.ENTRY_KIND_BOOKED]


async def test_failing_on_command(world: World, key: str) -> None:
    """FAIL does nothing and LOSE_ANSWER does everything; both answer UNAVAILABLE."""
    for behavior, found in (
        (pb.BEHAVIOR_FAIL, []),
        (pb.BEHAVIOR_LOSE_ANSWER, [pb.ENTRY_KIND_CAPTURED]),
    ):
        await world.behave(CARDS, behavior)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await capture(world, key)
        assert failure(failed) == UNAVAILABLE
        assert await world.kinds(key) == found


async def test_hanging_on_command(world: World, key: str) -> None:
    """HANG keeps the caller until its deadline and does nothing; the next call is normal."""
    await world.behave(CARDS, pb.BEHAVIOR_HANG)
    with pytest.raises(grpc.aio.AioRpcError) as hung:
        await capture(world, key, timeout=0.3)

    assert hung.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await world.kinds(key) == []
    assert await capture(world, key)


async def test_a_delayed_capture_comes_even_to_a_caller_who_has_gone(
    world: World, key: str
) -> None:
    """DELAY works late, whether or not anybody still waits for the answer."""
    await world.behave(CARDS, pb.BEHAVIOR_DELAY, delay=0.4)
    with pytest.raises(grpc.aio.AioRpcError):
        await capture(world, key, timeout=0.1)
    assert await world.kinds(key) == []

    await eventually(partial(_captured, world, key))


async def _captured(world: World, key: str) -> bool:
    return await world.kinds(key) == [pb.ENTRY_KIND_CAPTURED]


async def test_the_ledger_can_be_read_on_from_any_entry(
    sandbox: tuple[Shop, World], key: str
) -> None:
    """Reading goes on after a number, over several pages, without gap or duplicate."""
    shop, world = sandbox
    count = 2 * PAGE + 1

    def fill(tx: Tx) -> None:
        for number in range(count):
            store.append_entry(
                tx, pb.ENTRY_KIND_BOOKED, f"{key} {number}", key, 0.0, units=number + 1
            )

    await shop.runtimes["sandbox"].database.write(fill)
    mine = [entry for entry in await world.ledger() if entry.reference == key]
    middle = mine[PAGE - 1].number

    assert [entry.units for entry in mine] == list(range(1, count + 1))
    numbers = [entry.number for entry in mine]
    assert numbers == list(range(numbers[0], numbers[0] + count))
    assert await world.ledger(key) == mine
    assert await world.ledger(key, after=middle) == mine[PAGE:]
    assert await world.ledger(after=numbers[-1]) == []


async def test_mail_is_kept_beside_the_ledger(sandbox: tuple[Shop, World], key: str) -> None:
    """The process accepts mail on the port next to its own, and keeps it in its home."""
    shop, _ = sandbox
    await asyncio.to_thread(_send, smtp_port(shop.offset), key)
    (file,) = (shop.home / "mails").iterdir()

    assert f"Message-ID: <{key}@shop>" in file.read_text()


def _send(port: int, key: str) -> None:
    with smtplib.SMTP(HOST, port, timeout=DEADLINE) as client:
        client.sendmail("a@shop", ["b@shop"], f"Message-ID: <{key}@shop>\r\n\r\nhello")


async def test_commands_and_ledger_survive_a_kill(tmp_path: Path, key: str) -> None:
    """After SIGKILL, a new process has the same ledger and what is left of a command."""
    offset = free_offset()
    async with running_process("sandbox", tmp_path, offset) as process, world_at(offset) as world:
        await capture(world, key)
        await world.behave(CARDS, pb.BEHAVIOR_FAIL, calls=2)
        with pytest.raises(grpc.aio.AioRpcError):
            await capture(world, key)
        with pytest.raises(grpc.aio.AioRpcError):
            await capture(world, f"{key} flaky", "tok_flaky")
        before = await world.ledger()
        process.kill()
    async with running_world(tmp_path, offset=offset) as (_, world):
        assert await world.ledger() == before
        assert await capture(world, key)
        assert [entry.key for entry in await world.ledger()] == [key]
