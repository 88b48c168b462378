"""What an answer says of an error: its code, reason, domain and details, and no more than that."""

import logging
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.rpc.error_details_pb2 import ErrorInfo
from graphql import GraphQLError

from accord.edge.problem import Failure, failure
from accord.errors import InvalidArgument, failure_of
from accord_runtime.grpc.ids import uuid7

DOMAIN: Final = "edge"

log: Final = logging.getLogger(__name__)


def describe(error: GraphQLError) -> dict[str, Any]:
    """An error of a query as the answer has it.

    What nobody has foreseen is logged under a reference, and the caller gets only that.
    """
    cause = error.original_error
    if error.path is None and isinstance(cause, GraphQLError | None):
        # Of the document, or of its variables.
        cause = InvalidArgument("INVALID_QUERY", message=error.message)
    found = told(failure(cause or error, DOMAIN))
    if cause is None or failure_of(cause) is None:
        reference = uuid7()
        log.error("graphql has failed, reference %s", reference, exc_info=cause or error)
        found["message"] = f"internal error, reference {reference}"
    return {**error.formatted, **found}


def told(failed: Failure) -> dict[str, Any]:
    """Message and `extensions` of a failure."""
    status, info = failed.status, ErrorInfo()
    any(detail.Unpack(info) for detail in status.details)
    return {
        "message": status.message or "internal error",
        "extensions": {
            "code": failed.code,
            "reason": info.reason or failed.code,
            "domain": info.domain,
            "details": [MessageToDict(detail) for detail in status.details],
        },
    }
