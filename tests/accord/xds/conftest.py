"""One authority for all tests of a process: gRPC has one client identity in it."""

import pytest

from accord.identity import Identity
from tests.accord.xds.kit import People


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    """Whoever an authority knows."""
    return People(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="session")
def caller(people: People) -> Identity:
    """Who calls."""
    return people.identity("caller")


@pytest.fixture(scope="session")
def orders(people: People) -> Identity:
    """Who is called."""
    return people.identity("orders")
