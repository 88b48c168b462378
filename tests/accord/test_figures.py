"""What the benchmarks show and does not depend on the machine, in short runs."""

from benchmarks import deadline, kills, probes


async def test_nothing_begins_late() -> None:
    """Across three hops the leaf has less than the edge, and begins nothing that has expired."""
    figures = await deadline.measure(200, meshed=True)
    left = figures["accord, most that the leaf has left of 1 s"]
    assert isinstance(left, float)
    assert left <= 1
    assert figures["accord, begun late by the clock of the leaf"] == 0


async def test_probes_are_counted() -> None:
    """However many callers wait for a circuit to be tried again, exactly its probes get through."""
    figures = await probes.run(repetitions=5, callers=1000)
    assert figures["probes that got through: how often"] == {2: 5}


async def test_stream_across_killed_servers() -> None:
    """A resumable stream has no gap and no repeat, however often its server dies."""
    figures = await kills.run(kills=5, messages=500)
    assert figures["kills"] == 5
    assert figures["identical"]
