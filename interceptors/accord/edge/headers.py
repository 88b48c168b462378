"""Headers that mean something to the mesh, and those that say how long an answer may be kept.

Sources: W3C Trace Context; RFC 9110 (Accept, ETag, If-None-Match); RFC 9111 (Cache-Control);
draft-ietf-httpapi-idempotency-key-header.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import lru_cache
from hashlib import blake2b
from random import getrandbits
from typing import Any, Final

from grpc import StatusCode

from accord.context import CACHE_TTL_KEY, IDEMPOTENCY_KEY, deadline
from accord.contract.policy_types import MethodPolicy
from accord.edge.problem import EdgeError
from accord.policies.types import small_number
from accord.telemetry.propagation import TRACEPARENT, TRACESTATE, use_trace

REQUEST_ID: Final = "x-request-id"
MAX_TIMEOUT: Final = 3600.0
"""Seconds of a `Request-Timeout`."""

EXPOSED: Final = ("grpc-status", "grpc-message", "grpc-status-details-bin", "ETag", "Retry-After",
                  "X-Request-Id", "WWW-Authenticate")  # fmt: skip
"""What pages of other origins may read of an answer, where they may call at all."""

ALLOWED: Final = ("Authorization", "Content-Type", "Grpc-Timeout", "Idempotency-Key",
                  "If-None-Match", "Last-Event-ID", "Request-Timeout", "Traceparent", "Tracestate",
                  "X-Grpc-Web", "X-Request-Id", "X-User-Agent")  # fmt: skip
"""What they may send."""

_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_KEY: Final = re.compile(r"[!-~]{1,255}")
_TRACE: Final = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_SECONDS: Final = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)
_GRPC_TIMEOUT: Final = re.compile(r"(\d{1,8})([HMSmun])", re.ASCII)
_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_NEVER: Final = ((b"cache-control", b"no-store"),)


def request_id(headers: Mapping[str, str]) -> str:
    """The id that a client gives a request, or a new one if that is none."""
    given = headers.get(REQUEST_ID, "")
    return given if _ID.fullmatch(given) else f"{getrandbits(128):032x}"


def timeout(headers: Mapping[str, str], name: str) -> float | None:
    """Seconds that a client gives a call by a header, of HTTP or of gRPC; None: it does not.

    Raises EdgeError.
    """
    given = headers.get(name)
    if given is None:
        return None
    seconds = 0.0
    if name == "grpc-timeout":
        if (found := _GRPC_TIMEOUT.fullmatch(given)) is not None:
            seconds = int(found[1]) * _UNITS[found[2]]
    elif _SECONDS.fullmatch(given):
        seconds = float(given)
    if seconds <= 0:
        raise _bad(f"{name} is no time")
    return min(seconds, MAX_TIMEOUT)


def carried(headers: Mapping[str, str], request: str) -> tuple[tuple[str, str], ...]:
    """Metadata that goes on with a call as it came; `request` is its id. Raises EdgeError."""
    key = headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return ((REQUEST_ID, request),)
    if key[:1] == key[-1:] == '"':  # as the draft has it, a string of structured fields
        key = key[1:-1]
    if not _KEY.fullmatch(key):
        raise _bad("idempotency-key is none: 1 to 255 visible characters of ASCII")
    return ((REQUEST_ID, request), (IDEMPOTENCY_KEY, key))


def traced(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Metadata with the trace that a request belongs to, for calls that are not made `within`."""
    given = headers.get(TRACEPARENT, "")
    return ((TRACEPARENT, given),) if _TRACE.fullmatch(given) else ()


def within(headers: Mapping[str, str], seconds: float | None) -> AbstractContextManager[None]:
    """The trace that a request belongs to, and the time that it has, for the calls inside."""
    if seconds is None and TRACEPARENT not in headers:
        return nullcontext()
    return _within(headers, seconds)


@contextmanager
def _within(headers: Mapping[str, str], seconds: float | None) -> Iterator[None]:
    with ExitStack() as stack:
        if TRACEPARENT in headers:
            names = (TRACEPARENT, TRACESTATE)
            stack.enter_context(use_trace({k: headers[k] for k in names if k in headers}))
        if seconds is not None:
            stack.enter_context(deadline(seconds))
        yield


@lru_cache(maxsize=256)
def accepts(accept: str, kind: str) -> bool:
    """Whether a header Accept has room for a type, "application/json"."""
    family = kind.partition("/")[0] + "/*"
    for part in accept.split(",") if accept else ("*/*",):
        name, _, parameters = part.partition(";")
        if name.strip().lower() in (kind, family, "*/*") and not re.search(
            r"(?:^|;)\s*q=0(?:\.0*)?\s*(?:;|$)", parameters
        ):
            return True
    return False


def kept(policy: MethodPolicy, trailers: Any) -> tuple[tuple[bytes, bytes], ...]:  # gRPC's
    """How long the answer to a GET may be kept by who gets it.

    `trailers`: those of the call; None: the edge itself has kept it, nobody knows since when.
    """
    if policy.cache is None:
        return _NEVER
    seconds = int(policy.cache.ttl)
    if trailers is None:
        seconds = 0
    for key, value in trailers or ():
        if key == CACHE_TTL_KEY:
            seconds = min(seconds, small_number(value) or 0)
    how = f"private, max-age={seconds}" if seconds else "private, no-cache"
    return (b"cache-control", how.encode()), (b"vary", b"authorization")


def etag(body: bytes) -> str:
    """Names what an answer says."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """Whether a client has an answer of this tag, by weak comparison."""
    if if_none_match is None:
        return False
    listed = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return tag in listed or "*" in listed


def _bad(text: str) -> EdgeError:
    return EdgeError(400, StatusCode.INVALID_ARGUMENT, "INVALID_HEADER", text)
