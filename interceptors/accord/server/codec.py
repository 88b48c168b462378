"""The messages of one method.

The interceptors take serialisation over from gRPC, which would answer a request that it cannot
decode with INTERNAL and a response that it cannot encode with UNKNOWN.
"""

from collections.abc import Callable, Sequence
from typing import Any

from accord.errors import InvalidArgument
from accord.interfaces import FieldViolation, Validator


class Codec:
    """Decodes and validates the requests of one method, and encodes its responses."""

    __slots__ = ("_deserialize", "_serialize", "_validate")

    def __init__(
        self,
        deserialize: Callable[[bytes], Any] | None,
        serialize: Callable[[Any], bytes] | None,
        validate: Validator | None,
    ) -> None:
        self._deserialize = deserialize
        self._serialize = serialize
        self._validate = validate

    def decode(self, raw: bytes) -> Any:
        """The request. Raises InvalidArgument if it is garbage or breaks a rule."""
        if self._deserialize is None:
            return raw
        try:
            request = self._deserialize(raw)
        except Exception:  # whatever a deserialiser raises, it is the bytes that are wrong
            problem = FieldViolation("", "the request cannot be decoded")
            raise InvalidArgument(problem, reason="UNDECODABLE") from None
        violations: Sequence[FieldViolation] = self._validate(request) if self._validate else ()
        if violations:
            raise InvalidArgument(*violations)
        return request

    def encode(self, response: Any) -> bytes:
        """The response's bytes. Raises TypeError or ValueError for what is no response."""
        if self._serialize is None:
            return response  # type: ignore[no-any-return]
        return self._serialize(response)
