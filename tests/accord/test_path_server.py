"""The way of a call through the files of the library, on the server."""

import sys
from pathlib import Path
from types import FrameType
from typing import Any, Final

import accord
from tests.accord.kit import Message
from tests.accord.server_kit import bare

ROOT: Final = Path(accord.__file__).parent

MOST: Final = 9
"""Files that a reader opens to follow a usual call; policies, each a leaf of its own, apart."""


async def _answer(request: Any, context: Any) -> Any:
    return request


async def test_few_files() -> None:
    """A call that is admitted and answered crosses few files."""
    entered: set[str] = set()

    def look(frame: FrameType, event: str, argument: object) -> None:
        file = Path(frame.f_code.co_filename)
        if event == "call" and file.is_relative_to(ROOT):
            entered.add(str(file.relative_to(ROOT)))

    async with bare({"Unary": _answer}) as served:
        call = served.stub.Unary
        # Within the contract's timeout, as every client that knows the contract calls it.
        await call(Message(), timeout=1)  # what is done once per method
        sys.setprofile(look)
        try:
            await call(Message(), timeout=1)
        finally:
            sys.setprofile(None)
    files = {file for file in entered if not file.startswith("policies/")}
    assert "server/stages.py" in files
    assert len(files) <= MOST, sorted(files)
