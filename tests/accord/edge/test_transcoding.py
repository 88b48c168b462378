"""JSON: a message goes out and comes back, by body and by query."""

import json
from typing import Any
from urllib.parse import urlencode

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
