"""Requests by the thousand: well-formed, and made of what is plausible and of what is not."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from tests.services.bad_input.contract import METHOD, WELL_KNOWN, Rpc, class_of
from tests.services.bad_input.world import EMAIL, World
from tests.services.bad_input.wrong import ID

T = TypeVar("T")

ODD: Final = 12
"""One value in so many is anything at all: in most requests some field, in some requests none."""

_USUAL: Final[Mapping[str, Sequence[Any]]] = {
    "sku": ("tea", "rare", "pot"),
    "after_sku": ("", "tea"),
    "currency_code": ("EUR", "EUR", "JPY"),
    "country_code": ("DE", "DE", "AQ"),
    "url": ("https://127.0.0.1/hook", "https://shop.example/hook"),
    "event_types": ("shop.orders.v1.OrderConfirmed",),
    "condition": ("", "event.total.minor_units > 1"),
    "card_token": ("tok_visa", "tok_declined"),
    "email": ("bob@example.com", EMAIL),
    "key": ("taken", "booked", "reversed", "new"),
    "page_token": ("",),
    "step": ("charge", "confirm"),
    "definition": ("order", ""),
    "queue": ("saga", ""),
    "target": ("",),
    "method": (METHOD,),
    "method_prefix": ("", "shop."),
    "invalidated_by": (METHOD,),
    "max_attempts": (2, 3),
    "percentile": (95.0,),
    "minor_units": (499, 499, 1, 10**11),
    "quantity": (1, 2, 10_000),
    "on_hand": (1_000_000, 5, 0),
}
"""What is usually in a field of a name."""


def requests_of(rpc: Rpc, world: World) -> st.SearchStrategy[list[Message]]:
    """What is sent to an RPC: one request, or a stream of some."""
    request = _messages(rpc.descriptor.input_type, (ID, *world.ids()))
    return st.lists(request, min_size=1, max_size=4 if rpc.streamed else 1)


def _messages(descriptor: Descriptor, ids: Sequence[str]) -> st.SearchStrategy[Message]:
    fields = {field.name: _mostly(_values(field, ids), st.none()) for field in descriptor.fields}
    return st.fixed_dictionaries(fields).map(lambda values: _message(descriptor, values))


def _message(descriptor: Descriptor, values: Mapping[str, Any]) -> Message:
    message = class_of(descriptor)()
    for name, value in values.items():
        if isinstance(value, Message):
            getattr(message, name).CopyFrom(value)
        elif isinstance(value, list):
            getattr(message, name).extend(value)
        elif value is not None:
            setattr(message, name, value)  # The last field of a oneof wins.
    return message


def _values(field: FieldDescriptor, ids: Sequence[str]) -> st.SearchStrategy[Any]:
    value = _value(field, ids)
    return st.lists(value, min_size=1, max_size=3) if field.is_repeated else value


def _value(field: FieldDescriptor, ids: Sequence[str]) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        if field.message_type.file.package == WELL_KNOWN:
            return _durations(class_of(field.message_type))
        return _messages(field.message_type, ids)
    usual = _USUAL.get(field.name)
    match field.type:
        case FieldDescriptor.TYPE_STRING:
            usual = ids if field.name == "remove" or field.name.endswith("_id") else usual
            return _mostly(st.sampled_from(usual or ("Ada", "r")), st.text(max_size=300))
        case FieldDescriptor.TYPE_INT32:
            return _mostly(st.sampled_from(usual or (0, 1, 3)), _whole(31))
        case FieldDescriptor.TYPE_INT64:
            return _mostly(st.sampled_from(usual or (0, 1, 3)), _whole(63))
        case FieldDescriptor.TYPE_UINT32:
            return _mostly(st.sampled_from(usual or (0, 1, 3)), st.integers(0, 2**32 - 1))
        case FieldDescriptor.TYPE_DOUBLE:
            return _mostly(st.sampled_from(usual or (0.0, 1.0)), st.floats())
        case FieldDescriptor.TYPE_ENUM:
            assert field.enum_type is not None
            return _mostly(st.integers(0, len(field.enum_type.values) - 1), _whole(31))
        case FieldDescriptor.TYPE_BOOL:
            return st.booleans()
    raise AssertionError(f"{field.full_name}: teach the fuzzer this type")


def _mostly(usual: st.SearchStrategy[T], odd: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    return st.integers(1, ODD).flatmap(lambda number: odd if number == ODD else usual)


def _whole(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(2**bits), 2**bits - 1)


def _durations(duration: type[Message]) -> st.SearchStrategy[Message]:
    seconds, nanos = _mostly(st.integers(0, 1), _whole(63)), _mostly(st.just(0), _whole(31))
    return st.builds(duration, seconds=seconds, nanos=nanos)
