"""Copies of calls to another target: what it answers is counted, and nobody waits for it.

They go over a channel of gRPC with threads, for calls of `grpc.aio` too: an event loop has nothing
to do with them but to begin them. They are one attempt, without budget and breaker.
"""

import logging
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import Final

import grpc
from google.protobuf.message import Message

from accord._log import log
from accord.client.method_state import Environment
from accord.client.types import Pairs
from accord.context import SHADOW
from accord.contract.policy_types import MethodPolicy, ShadowPolicy

MAX_TIME: Final = 10.0
"""Seconds of a copy, if its call leaves no less."""


class Shadows:
    """The copies that one process sends."""

    def __init__(self, env: Environment, open_: Callable[[str], grpc.Channel]) -> None:
        """`open_` makes a bare channel to a target. Raises ValueError if there is none."""
        self._env = env
        self._open = open_
        self._lock = Lock()
        self._channels: dict[str, grpc.Channel | None] = {}
        """None: there is no such target."""
        self._under_way: dict[str, int] = {}

    def send(
        self,
        policy: MethodPolicy,
        request: object,  # of any method, or bytes
        metadata: Pairs,
        left: float | None,
    ) -> None:
        """Send a copy of a call, if it is one's turn; `left`: seconds that it has."""
        shadow, method = policy.shadow, policy.method
        if shadow is None or self._env.random() * 100 >= shadow.percent:
            return
        payload = request.SerializeToString() if isinstance(request, Message) else request
        channel = self._channel(shadow.target) if isinstance(payload, bytes) else None
        if channel is None or not self._begin(method, shadow):
            self._count(method, "refused")
            return
        try:
            copy = channel.unary_unary(method, None, None).future(
                payload,
                timeout=MAX_TIME if left is None else min(left, MAX_TIME),
                metadata=(*metadata, SHADOW),
            )
            copy.add_done_callback(partial(self._ended, method))
        except Exception as error:  # nothing that happens to a copy is the caller's
            log(logging.WARNING, "a call was not shadowed", error=error, method=method[1:])
            self._ended(method)

    def close(self) -> None:
        """End what is under way."""
        with self._lock:
            channels = [each for each in self._channels.values() if each is not None]
            self._channels.clear()
        for channel in channels:
            channel.close()

    def _channel(self, target: str) -> grpc.Channel | None:
        with self._lock:
            if target not in self._channels:
                try:
                    self._channels[target] = self._open(target)
                except ValueError as error:
                    self._channels[target] = None
                    log(logging.ERROR, "calls cannot be shadowed", target=target, problem=error)
            return self._channels[target]

    def _begin(self, method: str, shadow: ShadowPolicy) -> bool:
        with self._lock:
            under_way = self._under_way.get(method, 0)
            if under_way >= shadow.max_concurrent:
                return False
            self._under_way[method] = under_way + 1
            return True

    def _ended(self, method: str, copy: grpc.Call | None = None) -> None:
        with self._lock:
            self._under_way[method] -= 1
        ok = copy is not None and copy.code() is grpc.StatusCode.OK
        self._count(method, "ok" if ok else "failed")

    def _count(self, method: str, what: str) -> None:
        with self._env.lock:
            self._env.count(method, f"shadow.{what}")
