"""What holds for all tests."""

import os
import signal

import pytest
from hypothesis import settings

# No test is timed: on a busy machine any of them may stand still for a second.
settings.register_profile("accord", deadline=None)
settings.load_profile("accord")

# Shops go without TLS here; tests/security has them with certificates.
os.environ["MESH_INSECURE"] = "1"
# A shell that starts a run in the background has it ignore Ctrl-C, and so would all it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.faults.summary",
    "tests.support.databases",
    "tests.support.skips",
    "tests.support.small_disk",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: side by side, the others fill what time is left at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
