"""One of several backends is killed, frozen or slow: the others carry on, and no circuit opens."""

import pytest

from benchmarks import backends
from tests.chaos.scale import FULL

SECONDS = 6
ROWS = [
    ("killed", "not retried", 20, 1.0),
    ("killed", "retried", 0, 0.0),
    ("frozen", "not retried", 450, 4.0),
    ("frozen", "retried", 60, 4.0),
    ("slow", "retried", 60, 4.0),
]
SHARE = [("killed", "retried", 20, float(SECONDS))]
"""What holds beside other tests, which make calls late that no backend is to blame for."""


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "calls", "failed", "last"), ROWS if FULL else SHARE)
async def test_one_backend_of_several(fault: str, calls: str, failed: int, last: float) -> None:
    """Its loss costs what it had, or what was sent before it was known; no circuit opens."""
    figures = await backends.run(fault, calls, seconds=SECONDS, before=2)
    assert figures["failed"] <= failed, figures
    assert figures["last sent after, s"] <= last, figures
    assert not figures["opened"], figures
