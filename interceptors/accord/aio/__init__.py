"""Drivers for `grpc.aio`: the only code that touches gRPC calls."""

from typing import Any, Final

import grpc.aio

EOF: Final[Any] = grpc.aio.EOF  # type: ignore[attr-defined]
"""What gRPC's `read()` returns at the end of a stream (missing in its type stubs)."""
