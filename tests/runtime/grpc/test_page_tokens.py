"""Page tokens."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accord.errors import InvalidArgument
from accord.ops.v1.work_pb2 import ListWorkRequest
from accord_runtime.grpc.page_tokens import DEFAULT_SIZE, Page, decode_token, encode_token

FILTERS = st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3)
IDS = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)


@given(filters=FILTERS, last=IDS)
def test_a_token_leads_to_where_its_page_ended(filters: dict[str, str], last: str) -> None:
    """A token is ASCII for URLs, and gives the last id back for the same filters in any order."""
    token = encode_token(filters, last)
    assert token.isascii()
    assert decode_token(dict(reversed(filters.items())), token) == last


@given(filters=FILTERS, others=FILTERS, last=IDS)
def test_a_token_is_good_for_its_filters_only(
    filters: dict[str, str], others: dict[str, str], last: str
) -> None:
    """With other filters the field is named as the mistake."""
    token = encode_token(filters, last)
    if filters == others:
        assert decode_token(others, token) == last
        return
    with pytest.raises(InvalidArgument) as raised:
        decode_token(others, token)
    assert [violation.field for violation in raised.value.violations] == ["page_token"]


@given(token=st.one_of(st.text(min_size=1), st.from_regex("[A-Za-z0-9_=-]{1,80}", fullmatch=True)))
def test_garbage_is_the_callers_mistake(token: str) -> None:
    """Whatever somebody made up is refused, never an error of ours."""
    with pytest.raises(InvalidArgument):
        decode_token({}, token)


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    )
)
def test_other_json_is_the_callers_mistake(value: object) -> None:
    """A token of another shape is refused."""
    token = base64.urlsafe_b64encode(json.dumps(value).encode()).decode()
    with pytest.raises(InvalidArgument):
        decode_token({}, token)


def test_a_token_nested_without_end_is_the_callers_mistake() -> None:
    """Brackets deeper than the parser can go are refused."""
    with pytest.raises(InvalidArgument):
        decode_token({}, base64.urlsafe_b64encode(b"[" * 100_000).decode())


def test_no_token_is_the_first_page() -> None:
    """Without a token the list begins at its beginning, whatever the filters are."""
    assert decode_token({"a": "b"}, "") is None


def test_a_page_has_a_size_of_its_own() -> None:
    """A caller that does not say gets the default."""
    assert Page(ListWorkRequest()).most == DEFAULT_SIZE + 1
    assert Page(ListWorkRequest(page_size=7)).most == 7 + 1
