"""What one call has to do with the answers that are kept: may it be given one, is its own kept."""

import math
from functools import partial
from typing import Final

from google.protobuf.message import Message

from accord.client.method_state import MethodState
from accord.client.types import Metadata
from accord.context import CACHE_TTL_KEY
from accord.policies.cache import CacheKey, Ticket
from accord.policies.consistency import CONSISTENCY_KEY, Token, read_token
from accord.policies.idempotency import fingerprint
from accord.policies.types import small_number

_DIGITS: Final = 9
"""Those of a number of seconds."""


class KeptAnswers:
    """One call of a method whose answers are kept, or make others void."""

    __slots__ = ("_asked", "_state", "seen")

    def __init__(self, state: MethodState) -> None:
        self._state = state
        self._asked: tuple[CacheKey, Ticket] | None = None
        self.seen: Token | None = None
        """What the answer must show, where a kept one would show less."""

    def lookup(
        self, request: Message | bytes, principal: str, at_least: Token | None
    ) -> Message | None:
        """The kept answer to a request; None: it must be asked.

        `at_least` is the caller's consistency token, a state that the answer must show.
        """
        cache, method = self._state.target.cache, self._state.policy.method
        key = CacheKey(principal, method, fingerprint(method, request))
        self.seen = cache.seen(key)
        answer = cache.lookup(key, at_least=at_least)
        if answer is None:
            self._state.misses += 1
            self._asked = key, cache.ask(method)
            return None
        return answer()

    def keep(self, answer: Message, trailers: Metadata | None) -> None:
        """Note what an answer shows, and keep a copy of it if it was asked for: see `lookup`."""
        shows, ttl = _said(trailers)
        if shows is not None:
            self._state.target.cache.saw(shows)
        if self._asked is not None and ttl > 0:
            (key, ticket), raw = self._asked, answer.SerializeToString()
            again = partial(type(answer).FromString, raw)  # the caller may change its own
            self._state.target.cache.store(
                key, again, size=len(raw), ticket=ticket, shows=shows, ttl=ttl
            )


def _said(trailers: Metadata | None) -> tuple[Token | None, float]:
    """What state of which thing an answer shows, and for how many seconds it may be kept."""
    shows, ttl = None, math.inf
    for key, value in trailers or ():
        if key == CONSISTENCY_KEY:
            shows = read_token(value)
        elif key == CACHE_TTL_KEY:
            # What cannot be read must have been meant to shorten it.
            ttl = small_number(value, _DIGITS) or 0
    return shows, ttl
