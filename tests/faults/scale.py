"""How many faults, and how long they last.

FAULTS=full (`make faults`): all of them, at full length. FAULTS=short: all of them, short. Without
it: those that CI has time for, short.
"""

import os
from typing import Final

FULL: Final = os.environ.get("FAULTS") == "full"
ALL: Final = FULL or os.environ.get("FAULTS") == "short"

ORDERS: Final = 100 if FULL else 12
"""Orders before, during and after a fault."""

SECONDS: Final = 120.0 if FULL else 60.0
"""So long orders, mails and work may take to settle."""
