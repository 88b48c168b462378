"""How much chaos: a share of it with the other tests, all of it with `make chaos`."""

import os
from typing import Final

FULL: Final = os.environ.get("CHAOS") == "full"
