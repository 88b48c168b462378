"""When which call is due. It is known before the first one is made: an open loop."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrival:
    """A call that is due."""

    at: float
    """Seconds after the start."""
    kind: str


def arrivals(
    rate: float, seconds: float, shares: Mapping[str, int], seed: int
) -> Iterator[Arrival]:
    """`rate` calls a second for `seconds`, one at least, all as far apart.

    Args:
        rate: more than 0.
        seconds: 0 or more.
        shares: kind of call -> how often it is drawn, in relation to the others.
        seed: of the draw.
    """
    draw = random.Random(seed)
    kinds, weights = [*shares], [*shares.values()]
    for number in range(max(1, round(rate * seconds))):
        yield Arrival(number / rate, draw.choices(kinds, weights)[0])
