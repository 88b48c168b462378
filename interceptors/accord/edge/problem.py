"""Errors as they are told outside: problem JSON, and what of an error may be told at all.

What went wrong inside of the mesh is nobody's business outside: of INTERNAL, UNKNOWN and DATA_LOSS
only the code is told, of statuses that no service has explained a fixed sentence, which would else
be gRPC's own and name addresses. Sources: RFC 9457 (problem details), google.rpc.code (the status
of HTTP for each code), google.rpc.error_details (the details).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import grpc
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from accord.errors import DETAILS_KEY, ServiceError, grpc_code, trailers_of
from accord.interfaces import FieldViolation

STATUS: Final[Mapping[StatusCode, int]] = {
    StatusCode.CANCELLED: 499,
    StatusCode.UNKNOWN: 500,
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.DEADLINE_EXCEEDED: 504,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.UNAUTHENTICATED: 401,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.FAILED_PRECONDITION: 400,
    StatusCode.ABORTED: 409,
    StatusCode.OUT_OF_RANGE: 400,
    StatusCode.UNIMPLEMENTED: 501,
    StatusCode.INTERNAL: 500,
    StatusCode.UNAVAILABLE: 503,
    StatusCode.DATA_LOSS: 500,
}
"""Status of HTTP by that of gRPC, as google.rpc.code has it."""

_TITLES: Final = {each.value: each.phrase for each in HTTPStatus} | {499: "Client Closed Request"}

_UNTOLD: Final = frozenset({StatusCode.INTERNAL, StatusCode.UNKNOWN, StatusCode.DATA_LOSS})
"""Codes of which nothing is told."""

_FIXED: Final = {
    StatusCode.CANCELLED: "the call was cancelled",
    StatusCode.DEADLINE_EXCEEDED: "the time of the call is up",
    StatusCode.PERMISSION_DENIED: "this is not permitted",
    StatusCode.RESOURCE_EXHAUSTED: "a limit is reached",
    StatusCode.UNAUTHENTICATED: "it is not proven who calls",
    StatusCode.UNAVAILABLE: "the service is not available at the moment",
    StatusCode.UNIMPLEMENTED: "the service cannot do this",
}
"""What is told of codes that gRPC gives by itself, where no service has explained them."""

_IDENTITY: Final = "spiffe://"
"""In the text of who refuses the edge itself: it names processes of the mesh."""

_TOLD: Final = frozenset(
    f"type.googleapis.com/google.rpc.{name}"
    for name in (
        "BadRequest", "ErrorInfo", "Help", "LocalizedMessage", "PreconditionFailure",
        "QuotaFailure", "ResourceInfo", "RetryInfo",
    )
)  # fmt: skip
"""Details that are for callers: all of google.rpc but DebugInfo and RequestInfo."""


class EdgeError(ServiceError):
    """A request that the edge refuses by itself.

    `http` is the status of HTTP, which says more than that of gRPC; `headers` go with it.
    """

    def __init__(
        self,
        http: int,
        code: StatusCode,
        reason: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        *,
        violations: Sequence[FieldViolation] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            code, reason, message, violations=tuple(violations), retry_after=retry_after
        )
        self.http = http
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Failure:
    """How a request has failed, as far as it is told outside."""

    http: int
    """Status of HTTP."""
    status: status_pb2.Status
    headers: Mapping[str, str]

    @property
    def code(self) -> str:
        """Name of gRPC's code, such as NOT_FOUND."""
        return grpc_code(self.status.code).name

    def problem(self, instance: str, request_id: str) -> bytes:
        """As problem JSON. `instance`: the path of the request."""
        found: dict[str, Any] = {
            "type": "about:blank",
            "title": _TITLES.get(self.http, ""),
            "status": self.http,
            "instance": instance,
            "code": self.code,
            "requestId": request_id,
        }
        if self.status.message:
            found["detail"] = self.status.message
        info = error_details_pb2.ErrorInfo()
        if any(detail.Unpack(info) for detail in self.status.details):
            found["reason"], found["domain"] = info.reason, info.domain
        if self.status.details:
            found["details"] = [json_format.MessageToDict(each) for each in self.status.details]
        return json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()


def failure(error: BaseException, domain: str) -> Failure:
    """What is told of an error; `domain` is that of the edge's own. Anything may be given."""
    if isinstance(error, grpc.RpcError):
        found = _sent(error)
    elif isinstance(error, ServiceError):
        found = error.to_status(domain)
    else:
        found = status_pb2.Status(code=StatusCode.INTERNAL.value[0])
    status, delay = _told(found)
    code = grpc_code(status.code)
    http, headers = STATUS.get(code, 500), dict[str, str]()
    if isinstance(error, EdgeError):
        http, headers = error.http, dict(error.headers)
    elif code is StatusCode.UNAUTHENTICATED:
        headers["www-authenticate"] = "Bearer"
    if delay is not None:
        headers["retry-after"] = str(max(1, math.ceil(delay)))
    return Failure(http, status, headers)


def _sent(error: grpc.RpcError) -> status_pb2.Status:
    """The status of a failed call, with the details that its service has sent."""
    code = error.code()
    number = code.value[0] if isinstance(code, StatusCode) else StatusCode.INTERNAL.value[0]
    found = status_pb2.Status(code=number, message=error.details() or "")
    for key, raw in trailers_of(error):
        if key == DETAILS_KEY and isinstance(raw, bytes):
            try:
                found = status_pb2.Status.FromString(raw)
            except DecodeError:  # a garbled trailer must not hide the status itself
                continue
            found.code = number
            break
    return found


def _told(found: status_pb2.Status) -> tuple[status_pb2.Status, float | None]:
    """As much of a status as may be told, and in how many seconds it may be tried again."""
    code = grpc_code(found.code)
    if code in _UNTOLD or code is StatusCode.OK:
        number = StatusCode.INTERNAL.value[0] if code is StatusCode.OK else found.code
        return status_pb2.Status(code=number), None
    told, delay = status_pb2.Status(code=found.code, message=found.message), None
    explained = False
    for detail in found.details:
        if detail.type_url not in _TOLD:
            continue
        try:
            delay = _delay(detail) if detail.type_url.endswith("RetryInfo") else delay
            json_format.MessageToDict(detail)
        except (DecodeError, ValueError, json_format.Error):
            continue
        explained = explained or detail.type_url.endswith("ErrorInfo")
        told.details.add().CopyFrom(detail)
    if code in _FIXED and (not explained or _IDENTITY in told.message):
        told.message = _FIXED[code]
    return told, delay


def _delay(detail: Any) -> float:  # any_pb2.Any
    info = error_details_pb2.RetryInfo.FromString(detail.value)
    return info.retry_delay.ToNanoseconds() / 1e9
