"""What a stream that resumes does alike on both kinds of gRPC."""

import logging
from typing import Generic

import grpc
from google.protobuf.message import Message

from accord._log import log
from accord.client.call import Call
from accord.client.request import OnResume, failure_from
from accord.client.types import Failure, Metadata, Req, Res
from accord.policies.resume import OPEN_KEY


class ResumeTokens(Generic[Req]):
    """The tokens of one call: in its requests, and in what it delivers.

    A stream that is only tried again has none: all is wanted, and nothing is announced.
    """

    __slots__ = ("_delivered", "_fields", "_method", "_on_resume", "_request", "_resumption")

    def __init__(self, call: Call, request: Req, on_resume: OnResume | None) -> None:
        self._resumption = call.resumption
        self._fields = call.policy.resume
        self._method = call.policy.method
        self._request = request
        self._on_resume = on_resume
        self._delivered = False
        """Whether the caller has seen a message."""

    def request(self, *, again: bool) -> Req:
        """The request of an attempt; `again`: behind the last token that was delivered."""
        given, resumption, fields = self._request, self._resumption, self._fields
        if not again or resumption is None or fields is None or not isinstance(given, Message):
            return given
        request = type(given)()
        request.CopyFrom(given)
        setattr(request, fields.request_field, resumption.token)
        return request

    @property
    def resumes(self) -> bool:
        """Whether it goes on after a drop; else it is only tried again."""
        return self._resumption is not None

    def accepted(self, initial: Metadata | None) -> bool:
        """Whether the server has said, by its initial metadata, that the stream is open."""
        if self._resumption is None or all(key != OPEN_KEY for key, _ in initial or ()):
            return False
        self._resumption.opened()
        return True

    def wanted(self, message: Res) -> bool:
        """Whether the caller is to see a message, and has not seen it."""
        if self._resumption is None or self._fields is None:
            self._delivered = True
            return True
        token = int(getattr(message, self._fields.response_field))
        if token == 0 and isinstance(message, Message) and message.ByteSize() == 0:
            return False  # a keepalive: proof of life for the transport, nothing for the caller
        wanted = self._resumption.delivered(token)
        self._delivered = self._delivered or wanted
        return wanted

    def failure(self, error: grpc.RpcError) -> Failure:
        """What the end of an attempt with `error` says to the engine."""
        return failure_from(error, started=self._delivered)

    def announce(self, error: grpc.RpcError) -> None:
        """Tell the application that the stream goes on after `error`."""
        if self._on_resume is None or self._resumption is None:
            return
        try:
            self._on_resume(self._method, self._resumption.attempt, error)
        except Exception as problem:
            log(logging.ERROR, "on_resume failed", error=problem)
