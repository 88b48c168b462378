"""Sagas that were recorded go the same way today: what is asked, and what is written."""

from pathlib import Path

import pytest

from tests.services.orders.recording import FOLDER, WAYS, Recording, replay

RECORDED = sorted(FOLDER.rglob("*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name} {path.stem}")
async def test_a_recorded_saga_goes_the_same_way(path: Path, tmp_path: Path) -> None:
    """Given the answers of then, today's code makes the same calls and ends with the same events.

    If it does not, sagas that are under way when it is deployed would leave their way: a change of
    the steps is another version.
    """
    recorded = Recording.read(path)
    again, wrong = await replay(recorded, tmp_path)
    assert not wrong
    assert again.history == recorded.history
    assert (again.end, again.events) == (recorded.end, recorded.events)


def test_every_way_is_recorded() -> None:
    """Each way that a saga can go has its history, of the newest version."""
    newest = max(path.parent.name for path in RECORDED)
    assert {path.stem.replace("-", " ") for path in RECORDED if path.parent.name == newest} == set(
        WAYS
    )
