"""What the shop says of itself while something is wrong, and after how many seconds.

Three voices, as an operator or a monitoring system hears them: what `shopctl status` prints, the
RPC `grpc.health.v1.Health/Check` of every service, and its `/metrics`. Kept is every change.
"""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from services.topology import METRICS_DISTANCE
from shopctl.supervisor.state import read_run
from shopctl.supervisor.status import survey
from tests.faults.processes import ANSWER, Shop, health_of
from tests.faults.scale import FULL

PAUSE: Final = 0.5 if FULL else 1.0
"""Seconds between questions to a service."""

GOOD: Final = frozenset({"serving", "SERVING", "served"})

ALARMS: Final = (
    ("commits nothing", r"^accord_database_commits(?:{.*})? 0\.0$"),
    ("events wait", r"^accord_relay_oldest_age\w*(?:{.*})? [1-9]\d\S*$"),
)
"""What is not well, as a gauge says it."""

Voice = tuple[str, str]
"""Who says it, `status`, `health` or `metrics`, and of which process."""


@dataclass(frozen=True, slots=True)
class Said:
    """Something new.

    Attributes:
        at: seconds since the fault began; below 0 before it.
        what: a state.
    """

    at: float
    what: str


@dataclass
class Watch:
    """What was said so far.

    Attributes:
        said: voice -> what it said, when that changed.
        mended: seconds after which the cause was gone.
        recovered: seconds from then until all was right.
    """

    shop: Shop
    said: dict[Voice, list[Said]] = field(default_factory=dict)
    mended: float | None = None
    recovered: float | None = None
    _began: float = field(default_factory=time.monotonic)

    def began(self) -> None:
        """The fault begins now."""
        shift = self.now()
        self._began += shift
        for voice, changes in self.said.items():
            self.said[voice] = [Said(round(one.at - shift, 1), one.what) for one in changes]

    def over(self) -> None:
        """Its cause is gone now."""
        self.mended = max(self.now(), 0.0)

    def right(self) -> None:
        """All is as it should be now."""
        assert self.mended is not None
        self.recovered = round(self.now() - self.mended, 1)

    def now(self) -> float:
        """Seconds since the fault began."""
        return round(time.monotonic() - self._began, 1)

    def told(self, voice: str, name: str) -> float | None:
        """After how many seconds of the fault a voice said that a process is not well."""
        for one in self._since(voice, name):
            if one.what not in GOOD:
                return max(one.at, 0.0)
        return None

    def says(self, voice: str, name: str) -> str:
        """What it said last."""
        return self.said[voice, name][-1].what

    def well_again(self, voice: str, name: str) -> float | None:
        """How many seconds after the cause was gone a voice said, for good, that all is well."""
        bad = [one for one in self._since(voice, name) if one.what not in GOOD]
        if self.mended is None or not bad:
            return None
        good = [one for one in self.said[voice, name] if one.what in GOOD and one.at >= bad[-1].at]
        return round(max(good[0].at - self.mended, 0.0), 1) if good else None

    def _since(self, voice: str, name: str) -> list[Said]:
        changes = self.said.get((voice, name), [])
        before = [one for one in changes if one.at <= 0]
        end = math.inf if self.recovered is None else (self.mended or 0.0) + self.recovered
        return [*before[-1:], *(one for one in changes if 0 < one.at <= end)]

    def report(self, name: str) -> dict[str, Any]:
        """What is printed of it: see `summary`."""
        told = [
            {
                "voice": voice,
                "name": whose,
                "told": after,
                "well_again": self.well_again(voice, whose),
            }
            for voice, whose in self.said
            if (after := self.told(voice, whose)) is not None
        ]
        said = [
            {"voice": voice, "name": whose, "at": one.at, "what": one.what}
            for (voice, whose), changes in self.said.items()
            for one in changes
        ]
        return {
            "name": name,
            "lasted": self.mended,
            "recovered": self.recovered,
            "told": told,
            "said": said,
        }

    def note(self, voice: str, name: str, what: str) -> None:
        """Somebody has said something."""
        changes = self.said.setdefault((voice, name), [])
        if not changes or changes[-1].what != what:
            changes.append(Said(self.now(), what))

    async def status(self) -> None:
        """Ask what the command asks, once, without a process for it."""
        run = read_run(self.shop.home)
        for row in await survey(run, self.shop.home) if run else ():
            self.note("status", row.name, str(row.state))

    async def health(self, name: str, address: str) -> None:
        """Ask a service, once."""
        self.note("health", name, await health_of(name, address))

    async def metrics(self, name: str, address: str) -> None:
        """Scrape a service, once."""
        host, _, port = address.rpartition(":")
        text = ""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(ANSWER):
                reader, writer = await asyncio.open_connection(host, int(port) + METRICS_DISTANCE)
                try:
                    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    text = (await reader.read()).decode(errors="replace")
                finally:
                    writer.close()
        alarms = [what for what, gauge in ALARMS if re.search(gauge, text, re.MULTILINE)]
        self.note("metrics", name, ", ".join(alarms) or ("served" if text else "unreachable"))


@asynccontextmanager
async def watching(shop: Shop, others: Mapping[str, str] | None = None) -> AsyncIterator[Watch]:
    """Listen while the block runs; `others` are further replicas: name -> `host:port`."""
    watch = Watch(shop)

    async def ask(question: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await question()
            await asyncio.sleep(PAUSE)

    tasks = [asyncio.create_task(ask(watch.status))]
    for name, address in {**shop.addresses(), **(others or {})}.items():
        for each in (watch.health, watch.metrics):
            question = lambda each=each, name=name, address=address: each(name, address)  # noqa: E731
            tasks.append(asyncio.create_task(ask(question)))
    try:
        yield watch
        await watch.status()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
