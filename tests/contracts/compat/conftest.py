"""The versions that are tried against each other."""

from pathlib import Path

import pytest

from tests.contracts.compat import version
from tests.contracts.compat.version import Version
from tools import releases


@pytest.fixture(scope="session")
def last_release() -> Path:
    """The folder of the last release."""
    kept = releases.released()
    assert kept, "nothing is kept of any release: see docs/contract-compatibility.md"
    return list(kept.values())[-1]


@pytest.fixture(scope="session")
def old(last_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Version:
    """The last release, ready to run."""
    return version.kept(last_release, tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="session")
def new() -> Version:
    """Today's code."""
    return version.today()
