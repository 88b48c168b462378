"""What holds for all tests."""

from hypothesis import settings

# No test is timed: on a busy machine any of them may stand still for a second.
settings.register_profile("accord", deadline=None)
settings.load_profile("accord")

pytest_plugins = [
    "tests.faults.summary",
    "tests.support.databases",
    "tests.support.skips",
    "tests.support.small_disk",
]
