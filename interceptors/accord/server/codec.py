"""The messages of one method.

The interceptors take serialisation over from gRPC, which would answer a request that it cannot
decode with INTERNAL and a response that it cannot encode with UNKNOWN.
"""

from collections.abc import Callable, Sequence
from typing import Generic, cast

from accord.errors import InvalidArgument
from accord.interfaces import FieldViolation
from accord.server.protocols import MethodHandler, RequestT, ResponseT


class Codec(Generic[RequestT, ResponseT]):
    """Decodes and validates the requests of one method, and encodes its responses."""

    __slots__ = ("_deserialize", "_serialize", "_validate")

    def __init__(
        self,
        deserialize: Callable[[bytes], RequestT],
        serialize: Callable[[ResponseT], bytes],
        validate: Callable[[RequestT], Sequence[FieldViolation]] | None,
    ) -> None:
        self._deserialize = deserialize
        self._serialize = serialize
        self._validate = validate

    def decode(self, raw: bytes) -> RequestT:
        """The request. Raises InvalidArgument if it is garbage or breaks a rule."""
        try:
            request = self._deserialize(raw)
        except Exception:  # whatever a deserialiser raises, it is the bytes that are wrong
            problem = FieldViolation("", "the request cannot be decoded")
            raise InvalidArgument(problem, reason="UNDECODABLE") from None
        if self._validate is not None:
            violations = self._validate(request)
            if violations:
                raise InvalidArgument(*violations)
        return request

    def encode(self, response: ResponseT) -> bytes:
        """The response's bytes. Raises TypeError or ValueError for what is no response."""
        return self._serialize(response)


def codec_of(
    handler: MethodHandler[RequestT, ResponseT],
    validate: Callable[[RequestT], Sequence[FieldViolation]] | None,
) -> Codec[RequestT, ResponseT]:
    """The codec of a handler: its serialisers, or bytes as they are where it has none."""
    # Where there is no serialiser, the handler's messages are bytes; no type can say "only then".
    decode = handler.request_deserializer or cast("Callable[[bytes], RequestT]", _as_it_is)
    # As above.
    encode = handler.response_serializer or cast("Callable[[ResponseT], bytes]", _as_it_is)
    return Codec(decode, encode, validate if handler.request_deserializer else None)


def _as_it_is(raw: bytes) -> bytes:
    return raw
