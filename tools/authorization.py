"""Write the table of who may call what into `docs/authorization.md`, from the contracts.

Run it when the callers of an RPC change; a test compares.
"""

import re
from pathlib import Path
from typing import Final

from shopctl.authorization import matrix

PAGE: Final = Path(__file__).parents[1] / "docs" / "authorization.md"
_TABLE: Final = re.compile(r"(<!-- matrix -->\n).*?(?=<!-- end -->)", re.DOTALL)


def page() -> str:
    """The page with today's table."""
    return _TABLE.sub(lambda found: f"{found[1]}{matrix()}\n", PAGE.read_text())


if __name__ == "__main__":
    PAGE.write_text(page())
