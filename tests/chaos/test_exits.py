"""A service ends as it means to, whatever runs at that moment: never by a signal."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.chaos.scale import FULL

ROOT = Path(__file__).parents[2]


async def run(kind: str, count: int) -> str:
    """What the program printed; it must end well."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos.exits", kind, str(count)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


@pytest.mark.slow
async def test_services_that_end_under_load() -> None:
    """Processes that are told to end while they serve and call all end with 0."""
    count = 200 if FULL else 5
    assert f"ended: {{0: {count}}}" in await run("service", count)


@pytest.mark.slow
async def test_a_service_that_starts_and_stops_in_one_process() -> None:
    """However often it starts and stops under load, the process lives, and ends well."""
    count = 500 if FULL else 10
    assert f"started and stopped {count} times" in await run("restarts", count)
