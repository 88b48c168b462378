"""gRPC-Web: the same RPCs and the same permissions, under gRPC's own names."""

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2, status_pb2

import accord
from tests.accord.edge.kit import Parcel, echo, framed, serving, unframed

KINDS = ("application/grpc-web+proto", "application/grpc-web", "application/grpc-web-text")


async def post(served: Any, method: str, body: bytes, kind: str = KINDS[0], **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await served.http.post(
        f"/accordtest.v1.ParcelService/{method}",
        content=base64.b64encode(body) if "-text" in kind else body,
        headers={"content-type": kind, "x-grpc-web": "1", **named},
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == kind
    return unframed(answer.content, kind)


async def test_errors_and_deadlines(tmp_path: Path) -> None:
    """Details travel as google.rpc.Status, messages percent-encoded, deadlines inward."""

    async def find(request: Any, context: Any) -> Any:
        if request.weight:
            await asyncio.Event().wait()
        if request.floor:
            raise RuntimeError("secret")
        raise accord.NotFound("NO_SUCH_PARCEL", message="100 % gé\n")

    async with serving(tmp_path, {"FindParcels": find}) as served:
        _, trailers = await post(served, "FindParcels", framed(Parcel()))
        assert trailers["grpc-status"] == "5"
        assert trailers["grpc-message"] == "100 %25 g%C3%A9%0A"
        raw = base64.b64decode(trailers["grpc-status-details-bin"] + "==")
        info = error_details_pb2.ErrorInfo()
        status_pb2.Status.FromString(raw).details[0].Unpack(info)
        assert info.reason == "NO_SUCH_PARCEL"
        _, trailers = await post(served, "FindParcels", framed(Parcel(floor=1)))
        assert trailers == {"grpc-status": "13"}
        _, trailers = await post(
            served, "FindParcels", framed(Parcel(weight=1)), grpc_timeout="50m"
        )
        assert trailers["grpc-status"] == "4"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "3"),
        (b"\0\0", "3"),
        (framed(Parcel(note="a"))[:-1], "3"),
        (framed(Parcel(note="a")) + b"x", "3"),
        (framed(Parcel(note="a")) * 2, "3"),
        (framed(Parcel(note="a"), flag=1), "12"),
        (framed(Parcel(note="a"), flag=0x80), "3"),
        (b"\0\0\0\0\2\xff\xff", "3"),
        (b"\0\xff\xff\xff\xff", "3"),
        (framed(Parcel(note="a" * 1_100_000)), "3"),
    ],
)
async def test_bad_frames(tmp_path: Path, body: bytes, code: str) -> None:
    """What is not one frame with one message is refused, and nothing is called."""
    async with serving(tmp_path, {"FindParcels": echo}) as served:
        _, trailers = await post(served, "FindParcels", body)
        assert trailers["grpc-status"] == code
        answer = await served.http.post(
            "/accordtest.v1.ParcelService/FindParcels", content=b"*",
            headers={"content-type": KINDS[2]},
        )  # fmt: skip
        assert unframed(answer.content, KINDS[2])[1]["grpc-status"] == "3"
        _, trailers = await post(served, "FindParcels", framed(Parcel()), grpc_timeout="1x")
        assert trailers["grpc-status"] == "3"
        assert not served.metadata
