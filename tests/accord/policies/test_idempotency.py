"""What a key is, and which requests are the same."""

from hypothesis import given
from hypothesis import strategies as st

import accord
from accord.policies.idempotency import key_problem


@given(st.text(max_size=300))
def test_key_rule(key: str) -> None:
    """A key is valid exactly if it is 1 to 255 visible ASCII characters."""
    valid = 1 <= len(key) <= 255 and all(33 <= ord(char) <= 126 for char in key)
    assert valid == (key_problem(key) is None)


@given(st.binary(), st.binary(), st.text(), st.text())
def test_fingerprint(one: bytes, two: bytes, first: str, second: str) -> None:
    """Fingerprints are equal exactly for the same request of the same method."""
    first, second = first.replace("\0", ""), second.replace("\0", "")
    same = (first, one) == (second, two)
    assert same == (accord.fingerprint(first, one) == accord.fingerprint(second, two))
