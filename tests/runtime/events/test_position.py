"""What a consumer notes of how far it has got."""

from dataclasses import replace

from accord_runtime.events.position import Consumed


def test_an_event_is_known_only_at_its_own_sequence() -> None:
    """Where another version has gone on without noting it, none is known, and not the old one."""
    begun = Consumed(0.0, "", 0, "", 0, 0, "", "")
    assert begun.last_id() == ""
    reached = begun.reached(300, "an id")
    assert (reached.acknowledged, reached.last_id()) == (300, "an id")
    assert replace(reached, acknowledged=500).last_id() == ""
    assert begun.reached(7, "").last_id() == ""
