"""Requests by the thousand: well-formed, and otherwise whatever comes to mind."""

from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from tests.services.bad_input.contract import WELL_KNOWN, Rpc, class_of
from tests.services.bad_input.world import World
from tests.services.bad_input.wrong import ID

MOST_REQUESTS: Final = 4
_PLAUSIBLE: Final = (
    *("", ID, ID.upper(), "tea", "rare", "pot", "tok_visa", "tok_declined", "EUR", "USD", "JPY"),
    *("DE", "AQ", "Ada", "ada@example.com", "Main Street 1", "taken", "booked", "new", "r"),
)
_NUMBERS: Final = (0, 1, 2, 100, 499, 500, 10_000, 10**9, 10**11, 10**17)


def requests_of(rpc: Rpc, world: World) -> st.SearchStrategy[list[Message]]:
    """Streams of requests of an RPC, which know their way about the shop; mostly of one request."""
    known = (*_PLAUSIBLE, *world.ids())
    request = _messages(rpc.descriptor.input_type, known)
    return st.lists(
        request, min_size=not rpc.streamed, max_size=MOST_REQUESTS if rpc.streamed else 1
    )


def _messages(descriptor: Descriptor, known: Sequence[str]) -> st.SearchStrategy[Message]:
    values = {field.name: _values(field, known) for field in descriptor.fields}
    # Fields that are there most of the time get requests past the rules, to the handlers.
    parts = {name: st.none() | value | value | value for name, value in values.items()}
    return st.fixed_dictionaries(parts).map(lambda found: _message(descriptor, found))


def _message(descriptor: Descriptor, values: dict[str, Any]) -> Message:
    present = {name: value for name, value in values.items() if value is not None}
    for oneof in descriptor.oneofs:
        chosen = [field.name for field in oneof.fields if field.name in present]
        for name in chosen[1:]:
            del present[name]
    return class_of(descriptor)(**present)


def _values(field: FieldDescriptor, known: Sequence[str]) -> st.SearchStrategy[Any]:
    if field.is_repeated:
        assert field.message_type is not None
        return st.lists(_messages(field.message_type, known), max_size=3)
    if field.message_type is not None:
        if field.message_type.file.package == WELL_KNOWN:
            return _durations(class_of(field.message_type))
        return _messages(field.message_type, known)
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            plausible = st.sampled_from(known)
            return plausible | plausible | plausible | st.text(max_size=300)
        case FieldDescriptor.TYPE_INT32:
            return _numbers(31)
        case FieldDescriptor.TYPE_INT64:
            return _numbers(63)
        case FieldDescriptor.TYPE_ENUM:
            return st.integers(0, 12) | st.integers(-(2**31), 2**31 - 1)
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
    raise AssertionError(f"{field.full_name}: teach the fuzzer this type")


def _numbers(bits: int) -> st.SearchStrategy[int]:
    small = st.sampled_from([number for number in _NUMBERS if number < 2**bits])
    return small | small | st.integers(-(2**bits), 2**bits - 1)


def _durations(duration: type[Message]) -> st.SearchStrategy[Message]:
    seconds, nanos = st.integers(-1, 61) | _numbers(63), st.integers(0, 10**9) | _numbers(31)
    return st.builds(duration, seconds=seconds, nanos=nanos)
