"""What the tests of the client share."""

from collections.abc import AsyncIterator
from typing import Any, Final

import accord
from tests.accord.kit import Message, path

DOWN: Final = accord.Unavailable("DOWN")


class Flaky:
    """A handler that fails in a given way for its first calls, and counts all of them."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.attempts: list[int] = []

    async def unary(self, request: Any, context: Any) -> Any:
        self.calls += 1
        call = accord.current()
        self.attempts.append(call.attempt if call is not None else -1)
        if self.errors:
            raise self.errors.pop(0)
        return Message(text=f"answer {self.calls}")

    async def stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if request.text == "late":
            yield Message(text="first")
        yield await self.unary(request, context)


def route(mesh: accord.Mesh, method: str) -> Any:
    """What the mesh knows of a method."""
    (found,) = (found for found in mesh.snapshot().routes if found.method == path(method))
    return found
