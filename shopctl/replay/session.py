"""One replay, from the draw to the verdict."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services import topology
from shop.common.v1 import fulfilment_pb2 as pb
from shopctl.errors import CommandError, ExitCode
from shopctl.identity import is_insecure
from shopctl.options import Fulfilment
from shopctl.replay.books import BookReader
from shopctl.replay.clients import connect
from shopctl.replay.driver import Driver, load
from shopctl.replay.model import Expected, Fate, Plan
from shopctl.replay.progress import Tally
from shopctl.replay.reconcile import Verdict, reconcile
from shopctl.replay.tpch import Tpch
from shopctl.supervisor.health import State, check_grpc
from shopctl.supervisor.programs import SERVICES

MAIL_SECONDS: Final = 60.0
"""After the last order has ended. A mail is tried again after 0, 1, 2, 4 and 8 s."""

REACHABLE_SECONDS: Final = 15.0
"""So long a service may be away at the beginning; later the timeout alone decides."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What to replay.

    Attributes:
        orders: how many, at least 1.
        concurrency: orders under way, and calls that load or read the books, at a time.
        declined: share of orders whose card is declined, in percent.
        short: share of orders that lack stock, in percent.
        card: token of the cards that are not meant to be declined.
        seed: of the draw.
        timeout: for everything, in seconds.
        scale_factor: of TPC-H.
        offset: port offset of the shop.
        home: its folder, with the operator's certificate.
        fulfilment: how the orders are seen through.
    """

    orders: int
    concurrency: int
    declined: float
    short: float
    card: str
    seed: int
    timeout: float
    scale_factor: float
    offset: int
    home: Path
    fulfilment: Fulfilment = "orchestrated"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it.

    Attributes:
        run: name of the run, part of its SKUs, e-mail addresses and keys.
        verdict: of the reconciliation.
        seconds: from the first order placed to the last one ended.
    """

    run: str
    verdict: Verdict
    seconds: float


def replay(settings: Settings, tally: Tally) -> Result:
    """Draws, loads, places, follows and reconciles.

    Raises:
        CommandError: something is not installed, the shop does not run, a service refused what it
            must not refuse, or the time was up before every order had ended.
    """
    run = secrets.token_hex(4)
    tally.begin("generating TPC-H", 0)
    with Tpch(settings.scale_factor) as tpch:
        plan = tpch.draw(
            settings.orders,
            declined=settings.declined,
            short=settings.short,
            seed=settings.seed,
            run=run,
        )
        expected = tpch.expected()
    tally.watched = next((order.number for order in plan.orders if order.fate is Fate.GOOD), 1)
    return asyncio.run(_replay(settings, plan, expected, tally))


async def _replay(settings: Settings, plan: Plan, expected: Expected, tally: Tally) -> Result:
    await _await_shop(settings, min(REACHABLE_SECONDS, settings.timeout))
    try:
        async with (
            asyncio.timeout(settings.timeout),
            connect(settings.offset, settings.home, tally, settings.concurrency) as clients,
        ):
            customer_ids = await load(plan, clients)
            started = time.monotonic()
            fulfilment = pb.Fulfilment.Value(f"FULFILMENT_{settings.fulfilment.upper()}")
            driver = Driver(plan, customer_ids, settings.card, clients, fulfilment)
            followed = await driver.drive()
            seconds = time.monotonic() - started
            reader = BookReader(followed, clients)
            await reader.wait_for_mail(MAIL_SECONDS)
            books = await reader.read(plan.run, customer_ids.values())
            return Result(plan.run, reconcile(expected, books), seconds)
    except TimeoutError:
        raise CommandError(
            f"time was up after {settings.timeout:g} s while {tally.stage} ({tally.done} of "
            f"{tally.total}); {tally.placed} of {settings.orders} orders were placed and "
            f"{tally.ended} have ended; --timeout allows for more",
            ExitCode.UNKNOWN_OUTCOME,
        ) from None


async def _await_shop(settings: Settings, seconds: float) -> None:
    """Lets restarts pass, but does not wait for a shop that nobody started."""
    waiting: Sequence[str] = SERVICES
    deadline = time.monotonic() + seconds
    while waiting := await _not_serving(waiting, settings):
        if len(waiting) == len(SERVICES) or time.monotonic() > deadline:
            raise CommandError(
                f"{', '.join(waiting)} cannot be reached at {topology.HOST} with port offset "
                f"{settings.offset}; start the shop with: shopctl up",
                ExitCode.NOT_RUNNING,
            )
        await asyncio.sleep(0.2)


async def _not_serving(names: Sequence[str], settings: Settings) -> list[str]:
    home = None if is_insecure(settings.home) else settings.home
    addresses = (topology.address(name, settings.offset) for name in names)
    checks = (check_grpc(address, 2.0, home) for address in addresses)
    answers = zip(names, await asyncio.gather(*checks), strict=True)
    return [name for name, answer in answers if answer.state is not State.SERVING]
