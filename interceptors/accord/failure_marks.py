"""What a client leaves on the error of a failed call, for the server that may pass it on."""

from typing import Final

DEPENDENCY: Final = "accord_dependency"
"""Attribute of an `AioRpcError` that came through here: the method that failed."""

EXHAUSTED: Final = "accord_exhausted"
"""Attribute of a nested call's error: it has been retried as often as it may be."""
