"""What is done now and then is done together: to wake up is most of what a look costs.

All loops of a process wake for one reason, and the processes of a machine one after the other, so
that each finds the code that it needs in the caches of the one before.
"""

import time


def until_next(seconds: float) -> float:
    """Seconds until the next multiple of `seconds`, by the clock that a machine's processes share.

    From then on it is that long each time; until then at most.
    """
    return seconds - time.monotonic() % seconds
