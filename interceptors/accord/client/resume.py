"""What a stream that resumes does alike on both kinds of gRPC."""

import logging
from typing import Any

import grpc

from accord._log import log
from accord.client.call import Call
from accord.client.request import OnResume
from accord.policies.resume import OPEN_KEY


class ResumeTokens:
    """The tokens of one call: in its requests, and in what it delivers.

    A stream that is only tried again has none: all is wanted, and nothing is announced.
    """

    __slots__ = ("_fields", "_method", "_on_resume", "_request", "_resumption")

    def __init__(self, call: Call, request: Any, on_resume: OnResume | None) -> None:
        self._resumption = call.resumption
        self._fields = call.policy.resume
        self._method = call.policy.method
        self._request = request
        self._on_resume = on_resume

    def request(self, *, again: bool) -> Any:
        """The request of an attempt; `again`: behind the last token that was delivered."""
        if not again or self._resumption is None or self._fields is None:
            return self._request
        request = type(self._request)()
        request.CopyFrom(self._request)
        setattr(request, self._fields.request_field, self._resumption.token)
        return request

    @property
    def resumes(self) -> bool:
        """Whether it goes on after a drop; else it is only tried again."""
        return self._resumption is not None

    def accepted(self, initial: Any) -> bool:
        """Whether the server has said, by its initial metadata, that the stream is open."""
        if self._resumption is None or all(key != OPEN_KEY for key, _ in initial or ()):
            return False
        self._resumption.opened()
        return True

    def ended(self) -> None:
        """The stream has come to its end."""
        if self._resumption is not None:
            self._resumption.ended()

    def wanted(self, message: Any) -> bool:
        """Whether the caller is to see a message, and has not seen it."""
        if self._resumption is None or self._fields is None:
            return True
        token = int(getattr(message, self._fields.response_field))
        if token == 0 and message.ByteSize() == 0:
            return False  # a keepalive: proof of life for the transport, nothing for the caller
        return self._resumption.delivered(token)

    def announce(self, error: grpc.RpcError) -> None:
        """Tell the application that the stream goes on after `error`."""
        if self._on_resume is None or self._resumption is None:
            return
        try:
            self._on_resume(self._method, self._resumption.attempt, error)
        except Exception as problem:
            log(logging.ERROR, "on_resume failed", error=problem)
