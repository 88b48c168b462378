"""What a running shop says of the certificates that it keeps valid."""

import asyncio
import time
from datetime import timedelta
from pathlib import Path

import pytest

from shopctl.certs import keeper
from shopctl.certs.authority import SETTLE, Authority
from shopctl.certs.keeper import keep
from tests.support.wait import until


@pytest.mark.parametrize("many", [2, 5])
async def test_the_end_of_a_root_is_said_however_much_else_is_renewed(
    tmp_path: Path, many: int
) -> None:
    """An operator who waits for the old root to go sees it also when all leaves are due then."""
    ahead = 0.0
    authority = Authority(tmp_path, lambda: time.time() + ahead)
    authority.prepare([f"service-{number}" for number in range(many)])
    authority.announce_root()
    ahead = SETTLE + 1
    authority.renew_due()
    ahead += timedelta(days=2).total_seconds()
    said: list[str] = []
    keeping = asyncio.create_task(keep(authority, said.append, lambda: None))
    try:
        await until(lambda: said, "a line about it")
    finally:
        keeping.cancel()
    which = "service-0, service-1" if many == 2 else "5 of them"
    assert said == [f"renewed certificates: {which}; dropped the old root"]


async def test_a_folder_that_has_gone_is_said_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who keeps certificates outlives their folder, and sees those that are made in its place."""
    monkeypatch.setattr(keeper, "LOOK", 0.01)
    authority = Authority(tmp_path / "certs")
    authority.prepare(["orders"])
    said: list[str] = []
    changes: list[int] = []
    keeping = asyncio.create_task(keep(authority, said.append, lambda: changes.append(0)))
    await asyncio.sleep(0)  # it has looked at the files
    try:
        authority.folder.rename(tmp_path / "gone")
        await until(lambda: said or keeping.done(), "what is wrong to be said")
        seen = len(changes)
        authority.prepare(["orders"])
        await until(lambda: len(changes) > seen or keeping.done(), "the new ones to be seen")
        assert not keeping.done()
    finally:
        keeping.cancel()
    assert said[0].startswith("certificates cannot be renewed: ")
