"""Tests of what your callers and servers do when the network does its worst.

    async def test_a_parcel_is_found_in_spite_of_two_failures(accord_mesh, accord_faulty):
        accord_faulty.script(GET, "UNAVAILABLE", "UNAVAILABLE", GetParcelResponse(place="Hamburg"))
        parcels = ParcelServiceStub(accord_mesh.channel(accord_faulty.address))
        answer = await parcels.GetParcel(GetParcelRequest(parcel_id="7"))
        assert answer.place == "Hamburg"
        assert [attempt.number for attempt in accord_faulty.attempts] == [0, 1, 2]

Real calls over a real port, and no waiting: back-off, the delay of a hedge and the time of an open
breaker pass on a clock of the test. The fixtures are in `accord.testing.plugin`, which pytest
finds by itself; without pytest, `no_waiting`, `FaultyServer` and `serve` are all there is to it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from accord.testing.clock import Clock as Clock
from accord.testing.clock import Draws as Draws
from accord.testing.clock import no_waiting as no_waiting
from accord.testing.script import Step as Step
from accord.testing.script import drop as drop
from accord.testing.script import fail as fail
from accord.testing.script import hang as hang
from accord.testing.script import reply as reply

if TYPE_CHECKING:
    from accord.testing.faulty_server import Attempt as Attempt
    from accord.testing.faulty_server import FaultyServer as FaultyServer
    from accord.testing.servicer import serve as serve

# pytest loads this package in every run of a project that has it: gRPC only when it is needed.
_HOME_OF = {
    "Attempt": "accord.testing.faulty_server",
    "FaultyServer": "accord.testing.faulty_server",
    "serve": "accord.testing.servicer",
}


def __getattr__(name: str) -> object:  # whatever it is
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value
