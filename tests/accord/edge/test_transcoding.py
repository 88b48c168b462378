"""JSON: a message goes out and comes back, by body and by query."""

import json
import math
from typing import Any
from urllib.parse import urlencode

import pytest
from google.protobuf import (
    duration_pb2,
    json_format,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import accord
from accord.edge.printing import to_json
from accord.edge.transcoding import Transcoder
from tests.accord.edge.kit import Parcel

int64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(codec="utf-8"), max_size=20)
floats = st.floats(allow_nan=False)
names = st.text("abc", max_size=5)

scalars = {
    "parcel_id": text,
    "weight": int64,
    "floor": st.integers(0, 2**32 - 1),
    "fragile": st.booleans(),
    "value": floats,
    "size": st.sampled_from([0, 1, 2, 7]),
    "tags": st.lists(text, max_size=3),
    "numbers": st.lists(int64, max_size=3),
    "label": st.binary(max_size=20),
    "note": text,
    "ratio": st.floats(width=32, allow_nan=False),
    "street": text,
}
items = st.recursive(
    st.fixed_dictionaries({"sku": text, "quantity": st.integers(-(2**31), 2**31 - 1)}),
    lambda part: st.fixed_dictionaries({"sku": text, "parts": st.lists(part, max_size=2)}),
    max_leaves=4,
)
messages = st.fixed_dictionaries(
    {},
    optional={
        **scalars,
        "items": st.lists(items, max_size=2),
        "main_item": items,
        "counts": st.dictionaries(names, int64, max_size=3),
        "insured": st.builds(wrappers_pb2.BoolValue, value=st.booleans()),
        "travel": st.builds(duration_pb2.Duration, seconds=st.integers(-(10**10), 10**10)),
        "sent_at": st.builds(timestamp_pb2.Timestamp, seconds=st.integers(0, 10**10)),
        "anything": st.builds(struct_pb2.Value, string_value=text),
    },
)


@given(messages)
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_out_and_back_by_a_body(fields: dict[str, Any]) -> None:
    """What an answer says as JSON is, as a body, the same message."""
    message = Parcel(**fields)
    out = to_json(message)
    assert json.loads(out) == json_format.MessageToDict(
        message, always_print_fields_with_no_presence=True
    )
    assert Transcoder(Parcel, ()).request((), "", out.encode()) == message


def test_what_is_no_number_is_a_text() -> None:
    """Of both kinds of float, out and back."""
    for number, text in ((math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")):
        out = json.loads(to_json(Parcel(ratio=number, value=number)))
        assert (out["ratio"], out["value"]) == (text, text)
        back = Transcoder(Parcel, ()).request((), "", json.dumps(out).encode())
        assert to_json(back) == json.dumps(out, separators=(",", ":"))


@given(st.fixed_dictionaries({}, optional=scalars))
def test_out_and_back_by_a_query(fields: dict[str, Any]) -> None:
    """The same of the parameters of a query, but for texts that no path or query has."""
    message = Parcel(**fields)
    pairs = [
        (name, json.dumps(each) if isinstance(each, bool) else each)
        for name, value in json.loads(to_json(message)).items()
        if value not in ([], {})
        for each in (value if isinstance(value, list) else [value])
    ]
    assert Transcoder(Parcel, ()).request((), urlencode(pairs), None) == message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*scalars, "items", "counts", "mainItem", "sku", "x"]), inner
        )
    ),
    max_leaves=8,
)


@given(json_values)
def test_any_json_is_a_message_or_refused(value: Any) -> None:
    """Nothing that is sent makes it fail in another way."""
    try:
        found = Transcoder(Parcel, ()).request((), "", json.dumps(value).encode())
    except accord.InvalidArgument as refused:
        found = refused.to_status()
    assert found.ByteSize() >= 0


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_refused(body: bytes) -> None:
    """The same of bytes."""
    try:
        found = Transcoder(Parcel, ("weight",)).request(("1",), "", body)
    except accord.InvalidArgument as refused:
        found = refused.to_status()
    assert found.ByteSize() >= 0


BODIES: tuple[tuple[str, bytes, str], ...] = (
    ("a key twice", b'{"tags":[],"tags":[]}', "tags"),
    ("a key twice, deep", b'{"mainItem":{"sku":"a","sku":"b"}}', "sku"),
    ("both names of a field", b'{"parcelId":"1","parcel_id":"7"}', "parcel_id"),
    ("an unknown field", b'{"colour":1}', "colour"),
    ("an unknown field, deep", b'{"items":[{"sku":"a"},{"parts":[{"x":1}]}]}', ".parts[0].x"),
    ("a number too large", b'{"value":1e400}', ""),
    ("NaN", b'{"value":NaN}', ""),
    ("Infinity", b'{"value":-Infinity}', ""),
    ("a wrong type", b'{"floor":"many"}', "floor"),
    ("a wrong type, deep", b'{"items":[{"quantity":[]}]}', "items.quantity"),
    ("a negative of an unsigned", b'{"floor":-1}', "floor"),
    ("more than 64 bits", b'{"weight":9223372036854775808}', "weight"),
    ("a fraction of an integer", b'{"floor":1.5}', "floor"),
    ("a truth that is none", b'{"fragile":"yes"}', "fragile"),
    ("an unknown enum", b'{"size":"HUGE"}', "size"),
    ("no list", b'{"tags":"a"}', "tags"),
    ("null in a list", b'{"tags":[null]}', "tags[0]"),
    ("no map", b'{"counts":[]}', "counts"),
    ("no time", b'{"sentAt":"yesterday"}', "sentAt"),
    ("two of a oneof", b'{"street":"a","box":"b"}', "to"),
    ("an object for a string", b'{"note":{}}', "note"),
    ("half a surrogate", b'{"note":"\\ud800"}', "note"),
    ("half a surrogate as a name", b'{"\\ud800":1}', ""),
    ("not the path's", b'{"parcelId":"8"}', "parcelId"),
    ("no UTF-8", b'{"note":"\xff"}', ""),
    ("UTF-16", '{"note":"a"}'.encode("utf-16"), ""),
    ("a byte order mark", b"\xef\xbb\xbf{}", ""),
    ("more behind it", b"{} {}", ""),
    ("no end", b'{"note":', ""),
    ("no object", b"[]", ""),
    ("a bomb of lists", b"[" * 200_000, ""),
    ("a bomb of objects", b'{"a":' * 100_000, ""),
    ("a bomb of messages", b'{"mainItem":' + b'{"parts":[' * 300 + b"]}" * 300 + b"}", ""),
    ("a bomb of values", b'{"anything":' + b"[" * 500 + b"]" * 500 + b"}", "anything"),
    ("an integer of a million digits", b'{"weight":' + b"9" * 900_000 + b"}", ""),
    ("an extension", b'{"[a.b]":1}', ""),
)  # fmt: skip


@pytest.mark.parametrize(
    ("body", "where"), [each[1:] for each in BODIES], ids=[each[0] for each in BODIES]
)
def test_a_bad_body_is_refused(body: bytes, where: str) -> None:
    """What cannot be taken as it is meant is refused, with the field that it is about."""
    with pytest.raises(accord.InvalidArgument) as refused:
        Transcoder(Parcel, ("parcel_id",)).request(("7",), "", body)
    (violation,) = refused.value.violations
    assert violation.field.endswith(where)
    assert violation.description
    assert refused.value.to_status().details


QUERIES = [
    ("colour=red", "colour"),
    ("parcelId=1&parcelId=2", "parcelId"),
    ("parcelId=1&parcel_id=2", "parcel_id"),
    ("fragile=yes", "fragile"),
    ("floor=-1", "floor"),
    ("mainItem=x", "mainItem"),
    ("mainItem.sku.x=1", "mainItem.sku.x"),
    ("items.sku=1", "items.sku"),
    ("counts=1", "counts"),
    ("parcelId=%ff", ""),
    ("&".join(["tags=a"] * 201), ""),
]


@pytest.mark.parametrize(("query", "where"), QUERIES)
def test_a_bad_query_is_refused(query: str, where: str) -> None:
    """The same of a query: the parameter is named."""
    with pytest.raises(accord.InvalidArgument) as refused:
        Transcoder(Parcel, ()).request((), query, None)
    assert refused.value.violations[0].field == where
