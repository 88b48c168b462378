"""The one thread that does all that is done later."""

import threading
from typing import Any

import pytest

from accord.sync import timers


def test_another_thread_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timer whose thread cannot be started raises and is forgotten; the next one is on time."""

    def fail(thread: Any) -> None:
        raise RuntimeError("can't start new thread")

    found, done = timers.Timers(), []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError):
            found.after(0, lambda: done.append("refused"))
    told = threading.Event()
    found.after(0.01, told.set)
    assert told.wait(3)
    assert done == []


def test_longest_wait() -> None:
    """A timer beyond what a platform can wait for does not keep others waiting."""
    found = timers.Timers()
    far = found.after(1e10, lambda: None)
    for _ in range(2):  # before the second, its thread has waited for the far one alone
        near = threading.Event()
        found.after(0.01, near.set)
        assert near.wait(3)
    far.cancel()
    found.after(0, lambda: None)  # wakes the thread, so that it can end
