"""The way to one target: what the clients of a process share, whichever gRPC they speak."""

from collections.abc import Callable
from typing import Any

from accord import context, engine
from accord.outgoing import AT_LEAST_KEY, MAX_ATTEMPTS_KEY, Outgoing, position_of
from accord.route import Route

OnResume = Callable[[str, int, Any], None]
"""Told (method, number of the next attempt, error) before a stream is opened again.

The error is gRPC's: an `AioRpcError`, or an `RpcError` of a call over threads.
"""

Fallback = Callable[[Any, Any], Any]
"""Given a request and the error of its call, the response to use instead, or None for the error.

The error is gRPC's, as in `OnResume`.
May be a coroutine function, which only calls of `grpc.aio` can use. It should not call the same
target again.
"""


class Driver:
    """What the calls of one process share."""

    def __init__(self, env: engine.Environment, on_resume: OnResume | None = None) -> None:
        self.env = env
        self.on_resume = on_resume
        self.fallbacks: dict[str, Fallback] = {}
        """By method as it travels, "/pkg.Service/Method"."""


def new_call(
    route: Route,
    env: engine.Environment,
    outgoing: Outgoing,
    handled: context.CallContext | None,
    *,
    timeout: float | None,
    request: Any,
    make: Callable[..., engine.Call] = engine.Call,
) -> engine.Call:
    """The engine's side of a call that begins now; `request` is None for a stream of them."""
    policy = route.policy
    keyed, attempts, token = False, None, None
    if outgoing.options:
        keyed = context.IDEMPOTENCY_KEY in outgoing.options
        attempts = outgoing.option(MAX_ATTEMPTS_KEY) or None
    if policy.resume is not None and request is not None:
        token = int(getattr(request, policy.resume.request_field))
    if handled is None:
        call = make(route, env, explicit=timeout, keyed=keyed, max_attempts=attempts, token=token)
    else:
        call = make(
            route,
            env,
            explicit=timeout,
            declared=handled.policy.calls.get(policy.method),
            inherits=handled.deadline,
            inherited_attempt=handled.attempt,
            keyed=keyed,
            max_attempts=attempts,
            token=token,
        )
    outgoing.observe(route, env.clock)
    call.observer = outgoing.observed
    return call


def lookup(call: engine.Call, outgoing: Outgoing, request: Any) -> Any:
    """A copy of the kept answer to a request, or None."""
    handled = context.current()
    kept = call.lookup(
        request,
        principal="" if handled is None else handled.principal,
        at_least=outgoing.option(AT_LEAST_KEY),
    )
    return None if kept is None else type(kept).FromString(kept.SerializeToString())


def keep(call: engine.Call, answer: Any, trailers: Any) -> None:
    """Keep a copy of an answer: the caller may change its own."""
    raw = answer.SerializeToString()
    call.keep(type(answer).FromString(raw), size=len(raw), position=position_of(trailers))
