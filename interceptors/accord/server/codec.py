"""The messages of one method.

The interceptors take serialisation over from gRPC, which would answer a request that it cannot
decode with INTERNAL and a response that it cannot encode with UNKNOWN.
"""

from collections.abc import Callable, Sequence
from typing import Generic, cast

from accord.errors import InvalidArgument
from accord.interfaces import FieldViolation
from accord.server.types import MethodHandler, Req, Res


class Codec(Generic[Req, Res]):
    """Decodes and validates the requests of one method, and encodes its responses."""

    def __init__(
        self,
        handler: MethodHandler[Req, Res],
        validate: Callable[[Req], Sequence[FieldViolation]] | None,
    ) -> None:
        """A handler's serialisers, or bytes as they are where it has none."""
        decode, encode = handler.request_deserializer, handler.response_serializer
        # Without a serialiser a handler's messages are bytes; no type can say "only then".
        self._deserialize = decode or cast("Callable[[bytes], Req]", _as_it_is)
        # As above.
        self._serialize = encode or cast("Callable[[Res], bytes]", _as_it_is)
        self._validate = validate if decode else None

    def decode(self, raw: bytes) -> Req:
        """The request. Raises InvalidArgument if it is garbage or breaks a rule."""
        try:
            request = self._deserialize(raw)
        except Exception:  # whatever a deserialiser raises, it is the bytes that are wrong
            problem = FieldViolation("", "the request cannot be decoded")
            raise InvalidArgument("UNDECODABLE", problem) from None
        if self._validate is not None:
            violations = self._validate(request)
            if violations:
                raise InvalidArgument(*violations)
        return request

    def encode(self, response: Res) -> bytes:
        """The response's bytes. Raises TypeError or ValueError for what is no response."""
        return self._serialize(response)


def _as_it_is(raw: bytes) -> bytes:
    return raw
