"""gRPC-Web: the same RPCs and the same permissions, under gRPC's own names."""

import asyncio
import base64
import struct
from pathlib import Path
from typing import Any

import pytest
from google.rpc import error_details_pb2, status_pb2

import accord
from tests.accord.edge.kit import Parcel, Update, WatchRequest, echo, serving

KINDS = ("application/grpc-web+proto", "application/grpc-web", "application/grpc-web-text")


def framed(message: Any, flag: int = 0) -> bytes:
    raw: bytes = message.SerializeToString()
    return struct.pack(">BI", flag, len(raw)) + raw


def unframed(body: bytes, kind: str) -> tuple[list[bytes], dict[str, str]]:
    """The messages and the trailers of an answer."""
    if "-text" in kind:
        body = b"".join(
            base64.b64decode(each + b"=" * (-len(each) % 4)) for each in body.split(b"=") if each
        )
    messages, trailers = [], {}
    while body:
        flag, size = struct.unpack_from(">BI", body)
        raw, body = body[5 : 5 + size], body[5 + size :]
        if flag & 0x80:
            trailers = dict(line.split(": ", 1) for line in raw.decode().splitlines())
        else:
            messages.append(raw)
    return messages, trailers


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


@pytest.mark.parametrize("kind", KINDS)
async def test_unary_and_streams(tmp_path: Path, kind: str) -> None:
    """Messages come as frames, the status as the last, in both encodings."""

    async def listed(request: Any, context: Any) -> Any:
        for n in range(3):
            yield Update(sequence=n + 1)

    async with serving(tmp_path, {"FindParcels": echo, "List": listed}) as served:
        sent = Parcel(parcel_id="7", note="é")
        (got,), trailers = await post(served, "FindParcels", framed(sent), kind)
        assert Parcel.FromString(got) == sent
        assert trailers == {"grpc-status": "0"}
        found, trailers = await post(served, "List", framed(WatchRequest()), kind)
        assert [Update.FromString(each).sequence for each in found] == [1, 2, 3]
        assert trailers == {"grpc-status": "0"}


async def test_scopes_are_the_same(tmp_path: Path) -> None:
    """No token, a wrong scope, a method without a route: refused as by REST, nothing is called."""
    async with serving(tmp_path, {"GetParcel": echo, "Hidden": echo}) as served:
        body = framed(Parcel(parcel_id="7"))
        for headers, code in (
            ({}, "16"),
            ({"authorization": "Bearer x"}, "16"),
            (served.bearer("parcels:write"), "7"),
        ):
            _, trailers = await post(served, "GetParcel", body, **headers)
            assert trailers["grpc-status"] == code
        for method in ("Hidden", "Nothing"):
            _, trailers = await post(served, method, body, **served.bearer("parcels:read"))
            assert trailers["grpc-status"] == "12"
        assert not served.metadata
        (got,), _ = await post(served, "GetParcel", body, **served.bearer("parcels:read"))
        assert Parcel.FromString(got).parcel_id == "7"


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
