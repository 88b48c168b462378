"""Errors as they travel: google.rpc.Status with ErrorInfo and its companions.

A handler raises one of these; the server interceptor turns it into a status with details in the
trailers. The caller gets gRPC's own `AioRpcError` and reads it with `failure_of`.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final, cast

import grpc
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from accord import context
from accord.error_details import MAX_DETAILS, Remade, about, bounded, cut, remade
from accord.error_details import Precondition as Precondition
from accord.error_details import Resource as Resource
from accord.interfaces import FieldViolation

DETAILS_KEY: Final = "grpc-status-details-bin"
"""Trailer that carries a google.rpc.Status (gRPC's richer error model)."""

CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
"""gRPC's status codes by number; see `grpc_code`."""

DEPENDENCY: Final = "accord_dependency"
"""Attribute of an `AioRpcError` that came through here: the method that failed."""

EXHAUSTED: Final = "accord_exhausted"
"""Attribute of a nested call's error: it has been retried as often as it may be."""

_REFUSALS: Final = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)
_NOT_AN_ERROR: Final = frozenset({grpc.StatusCode.UNKNOWN, grpc.StatusCode.OK})
_MAX_VIOLATIONS: Final = 20
_MAX_TEXT: Final = 200


def grpc_code(number: int) -> grpc.StatusCode:
    """A status code as gRPC has it; INTERNAL for a number that is none."""
    return CODES.get(number, grpc.StatusCode.INTERNAL)


class ServiceError(Exception):
    """A failure that the caller may know of.

    `reason` is UPPER_SNAKE_CASE and what callers branch on, and the first argument of each
    subclass; `message` is for people and at most 1,024 bytes of UTF-8; `retry_after` is in seconds.
    `domain` names the service that decided; the interceptor fills it in.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        reason: str,
        message: str = "",
        *,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[FieldViolation, ...] = (),
        preconditions: tuple[Precondition, ...] = (),
        resource: Resource | None = None,
        retry_after: float | None = None,
        domain: str = "",
    ) -> None:
        super().__init__(message or reason)
        self.code = code
        self.reason = reason
        self.message = message or reason
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.preconditions = preconditions
        self.resource = resource
        self.retry_after = retry_after
        self.domain = domain

    def __reduce__(self) -> Remade:
        return remade(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code.name}, {self.reason!r}, {self.message!r})"

    @property
    def refusal(self) -> bool:
        """Whether this is a business refusal: deterministic, and the answer to every repeat.

        Anything else is transient or the caller's mistake and is never stored.
        """
        return self.code in _REFUSALS

    def to_status(self, domain: str = "") -> status_pb2.Status:
        """This error as google.rpc.Status.

        `domain` is used unless the error has one; without either it is the service whose call is
        being handled.
        """
        # A status is never UNKNOWN: that would tell the caller nothing about trying again.
        code = grpc.StatusCode.INTERNAL if self.code in _NOT_AN_ERROR else self.code
        status = status_pb2.Status(code=code.value[0], message=cut(self.message))
        add, call = status.details.add, context.current()
        domain = self.domain or domain or (call.service if call is not None else "")
        add().Pack(
            error_details_pb2.ErrorInfo(reason=self.reason, domain=domain, metadata=self.metadata)
        )
        if self.violations:
            bad = error_details_pb2.BadRequest()
            for violation in self.violations[:_MAX_VIOLATIONS]:
                bad.field_violations.add(
                    field=violation.field[:_MAX_TEXT], description=violation.description[:_MAX_TEXT]
                )
            add().Pack(bounded(bad, bad.field_violations, status))
        if self.preconditions:
            failed = error_details_pb2.PreconditionFailure()
            for item in self.preconditions:
                failed.violations.add(
                    type=item.type, subject=item.subject, description=item.description
                )
            add().Pack(bounded(failed, failed.violations, status))
        if self.resource is not None:
            add().Pack(
                error_details_pb2.ResourceInfo(
                    resource_type=self.resource.type,
                    resource_name=self.resource.name,
                    description=self.resource.description,
                )
            )
        if self.retry_after is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(round(self.retry_after * 1e9))
            add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
        # Trailers that are too large would replace the status by RESOURCE_EXHAUSTED.
        while status.ByteSize() > MAX_DETAILS and status.details:
            del status.details[-1]
        return status

    @classmethod
    def from_status(cls, status: status_pb2.Status) -> "ServiceError":
        """The error that a google.rpc.Status describes. Details that are not known are skipped."""
        error = ServiceError(grpc_code(status.code), "", status.message)
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        failed = error_details_pb2.PreconditionFailure()
        found = error_details_pb2.ResourceInfo()
        retry = error_details_pb2.RetryInfo()
        for detail in status.details:
            with suppress(DecodeError):
                if detail.Unpack(info):
                    error.reason, error.domain = info.reason, info.domain
                    error.metadata = dict(info.metadata)
                elif detail.Unpack(bad):
                    error.violations = tuple(
                        FieldViolation(item.field, item.description)
                        for item in bad.field_violations
                    )
                elif detail.Unpack(failed):
                    error.preconditions = tuple(
                        Precondition(item.type, item.subject, item.description)
                        for item in failed.violations
                    )
                elif detail.Unpack(found):
                    error.resource = Resource(
                        found.resource_type, found.resource_name, found.description
                    )
                elif detail.Unpack(retry):
                    error.retry_after = retry.retry_delay.ToNanoseconds() / 1e9
        return error

    @classmethod
    def from_rpc(cls, error: grpc.RpcError) -> "ServiceError":
        """The error behind a failed call, with the details that the server sent.

        Errors that did not come from a handler (no route, deadline) have no details: their reason
        is the name of the code.
        """
        code, details = error.code(), error.details() or ""
        if not isinstance(code, grpc.StatusCode):
            code = grpc.StatusCode.INTERNAL
        found = ServiceError(code, "", details)
        for key, raw in trailers_of(error):
            if key == DETAILS_KEY and isinstance(raw, bytes):
                # A garbled trailer must not hide the status itself.
                with suppress(DecodeError):
                    found = cls.from_status(status_pb2.Status.FromString(raw))
                found.code = code
                break
        found.reason = found.reason or code.name
        found.message = found.message or details
        return found


class InvalidArgument(ServiceError):
    """The request is wrong whatever the state of the system.

    `violations` are `FieldViolation`s or pairs (field, description). Only here the reason may be
    left out, since violations cannot be taken for one.
    """

    def __init__(
        self,
        reason: str | FieldViolation | tuple[str, str] = "INVALID_ARGUMENT",
        *violations: FieldViolation | tuple[str, str],
        message: str = "",
    ) -> None:
        if not isinstance(reason, str):
            violations = (reason, *violations)
            reason = "INVALID_ARGUMENT"
        found = tuple(
            item if isinstance(item, FieldViolation) else FieldViolation(*item)
            for item in violations
        )
        text = message or "; ".join(
            f"{item.field}: {item.description}" if item.field else item.description
            for item in found
        )
        super().__init__(grpc.StatusCode.INVALID_ARGUMENT, reason, text, violations=found)


class NotFound(ServiceError):
    """The entity does not exist. A refusal."""

    def __init__(
        self, reason: str = "NOT_FOUND", resource: Resource | None = None, message: str = ""
    ) -> None:
        text = message or about(resource, "does not exist")
        super().__init__(grpc.StatusCode.NOT_FOUND, reason, text, resource=resource)


class AlreadyExists(ServiceError):
    """The entity exists already. A refusal."""

    def __init__(
        self, reason: str = "ALREADY_EXISTS", resource: Resource | None = None, message: str = ""
    ) -> None:
        text = message or about(resource, "exists already")
        super().__init__(grpc.StatusCode.ALREADY_EXISTS, reason, text, resource=resource)


class FailedPrecondition(ServiceError):
    """The system is not in the state that the request needs. A refusal."""

    def __init__(
        self,
        reason: str,
        message: str = "",
        *preconditions: Precondition,
        metadata: Mapping[str, str] | None = None,
        resource: Resource | None = None,
    ) -> None:
        super().__init__(
            grpc.StatusCode.FAILED_PRECONDITION,
            reason,
            message,
            metadata=metadata,
            preconditions=preconditions,
            resource=resource,
        )


class OutOfRange(ServiceError):
    """Past the valid range, such as a position that does not exist yet. A refusal."""

    def __init__(
        self, reason: str, message: str = "", *, metadata: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(grpc.StatusCode.OUT_OF_RANGE, reason, message, metadata=metadata)


class Aborted(ServiceError):
    """The operation lost a race and may be tried again as a whole."""

    def __init__(
        self, reason: str = "ABORTED", message: str = "", *, retry_after: float | None = None
    ) -> None:
        super().__init__(grpc.StatusCode.ABORTED, reason, message, retry_after=retry_after)


class ResourceExhausted(ServiceError):
    """A quota or a capacity is used up."""

    def __init__(
        self,
        reason: str = "RESOURCE_EXHAUSTED",
        retry_after: float | None = None,
        message: str = "",
    ) -> None:
        super().__init__(
            grpc.StatusCode.RESOURCE_EXHAUSTED, reason, message, retry_after=retry_after
        )


class Unavailable(ServiceError):
    """The service cannot do it at the moment."""

    def __init__(
        self, reason: str = "UNAVAILABLE", retry_after: float | None = None, message: str = ""
    ) -> None:
        super().__init__(grpc.StatusCode.UNAVAILABLE, reason, message, retry_after=retry_after)


class DeadlineExceeded(ServiceError):
    """The time of the call is up."""

    def __init__(self, reason: str = "DEADLINE_EXCEEDED", message: str = "") -> None:
        super().__init__(grpc.StatusCode.DEADLINE_EXCEEDED, reason, message)


class PermissionDenied(ServiceError):
    """The caller may not do this."""

    def __init__(self, reason: str = "PERMISSION_DENIED", message: str = "") -> None:
        super().__init__(grpc.StatusCode.PERMISSION_DENIED, reason, message)


class Unauthenticated(ServiceError):
    """It is not proven who calls, or for whom."""

    def __init__(self, reason: str = "UNAUTHENTICATED", message: str = "") -> None:
        super().__init__(grpc.StatusCode.UNAUTHENTICATED, reason, message)


class IdempotencyConflict(Exception):
    """Raised by a handler whose idempotency record was written by somebody else meanwhile.

    The interceptor looks the record up again and answers with it.
    """


Translate = Callable[[Exception], ServiceError | None]
"""What an exception of the process's own means to a caller; None: nothing, it is a bug."""


def trailers_of(error: grpc.RpcError) -> Iterable[tuple[str, str | bytes]]:
    """The trailers of a failed call."""
    # gRPC's stubs say that these are objects of a class, which are really pairs.
    return cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())


def failure_of(error: BaseException) -> ServiceError | None:
    """What an exception says about a failed call: itself, an RPC's parsed error, or None."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, grpc.RpcError):
        return ServiceError.from_rpc(error)
    return None
