"""Cache: answers of declared methods, kept by the caller for a while.

An answer is served until `ttl` seconds after it was asked for, to the same principal, method and
request only. A write that the contract names under `invalidated_by` drops the method's answers,
also those on their way: an answer that was asked for before the write is not kept after it. The
server may shorten the time of one answer. An answer older than a state that its caller, or this
process, has seen of the same thing (`consistency.Token`) is passed by. Bounded by entries and
bytes; the least recently used go first.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final, Generic, NamedTuple, TypeVar

from accord.policies.consistency import Token

V = TypeVar("V")

MAX_ENTRIES: Final = 10_000
MAX_BYTES: Final = 16 * 1024 * 1024
MAX_SEEN: Final = 10_000
"""Things of which it is remembered what state of them was seen."""

_UNKNOWN: Final = Token("", 0)


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """A cache in the caller's process; `ttl` in seconds, methods as "/pkg.Service/Method"."""

    ttl: float
    invalidated_by: tuple[str, ...] = ()


class CacheKey(NamedTuple):
    """Whose answer to what: no principal is ever served another's."""

    principal: str
    method: str
    fingerprint: bytes
    """From `accord.policies.idempotency.fingerprint`."""


class Ticket(NamedTuple):
    """Taken before a call is sent, so that its answer can be judged when it arrives."""

    asked_at: float
    generation: int


class _Entry(NamedTuple, Generic[V]):
    value: V
    size: int
    expires: float
    generation: int
    shows: Token


class _Method:
    """A cached method; a new generation makes all its answers void at once."""

    __slots__ = ("generation", "policy")

    def __init__(self, policy: CachePolicy) -> None:
        self.policy = policy
        self.generation = 0


@dataclass(frozen=True, slots=True)
class CacheSnapshot:
    """A cache at one moment."""

    entries: int
    size: int
    """Bytes."""
    hits: int
    misses: int


class AnswerCache(Generic[V]):
    """The answers kept by one process. Safe under threads; O(1).

    Values must be immutable, or be copied on the way out: all callers get the same one.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._clock = clock
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._entries: OrderedDict[CacheKey, _Entry[V]] = OrderedDict()
        self._methods: dict[str, _Method] = {}
        self._voided_by: dict[str, list[_Method]] = {}
        self._seen: OrderedDict[str, int] = OrderedDict()
        self._size = 0
        self._hits = 0
        self._misses = 0

    def declare(self, method: str, policy: CachePolicy) -> None:
        """A method's answers may be kept. Another policy than before drops those that are."""
        with self._lock:
            known = self._methods.get(method)
            if known is None:
                known = self._methods[method] = _Method(policy)
            elif known.policy == policy:
                return
            known.policy = policy
            known.generation += 1
            for writers in self._voided_by.values():
                if known in writers:
                    writers.remove(known)
            for writer in policy.invalidated_by:
                self._voided_by.setdefault(writer, []).append(known)

    def lookup(self, key: CacheKey, *, at_least: Token | None = None) -> V | None:
        """The answer under `key`, unless it has expired or shows less than has been seen.

        `at_least` was seen by the caller; what this process has `seen` counts in any case.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                dead = entry.generation != self._methods[key.method].generation
                if dead or self._clock() >= entry.expires:
                    self._drop(key)
                elif self._shows(entry, at_least):
                    self._entries.move_to_end(key)
                    self._hits += 1
                    return entry.value
            self._misses += 1
            return None

    def _shows(self, entry: _Entry[V], at_least: Token | None) -> bool:
        of, position = entry.shows
        if at_least is not None and (of != at_least.of or position < at_least.position):
            return False
        return position >= self._seen.get(of, 0)

    def saw(self, token: Token) -> None:
        """This process has seen a state of a thing."""
        with self._lock:
            self._seen[token.of] = max(token.position, self._seen.get(token.of, 0))
            self._seen.move_to_end(token.of)
            if len(self._seen) > MAX_SEEN:
                self._seen.popitem(last=False)

    def seen(self, key: CacheKey) -> Token | None:
        """What has been seen of the thing that the answer under `key` shows an older state of."""
        with self._lock:
            entry = self._entries.get(key)
            of = "" if entry is None else entry.shows.of
            if entry is None or self._seen.get(of, 0) <= entry.shows.position:
                return None
            return Token(of, self._seen[of])

    def ask(self, method: str) -> Ticket:
        """To be called before the request is sent. Raises KeyError if the method is undeclared."""
        with self._lock:
            return Ticket(self._clock(), self._methods[method].generation)

    def store(
        self,
        key: CacheKey,
        value: V,
        *,
        size: int,
        ticket: Ticket,
        shows: Token | None = None,
        ttl: float = math.inf,
    ) -> bool:
        """Keep an answer of `size` bytes if it is still worth it; whether it was kept.

        `shows`: what and which state of it, if that is known. A newer answer is not replaced by an
        older one. `ttl`: seconds for which the server lets it be kept, if that is less.
        """
        shows = shows or _UNKNOWN
        with self._lock:
            method = self._methods[key.method]
            expires = ticket.asked_at + min(ttl, method.policy.ttl)
            if ticket.generation != method.generation or self._clock() >= expires:
                return False
            if size > self._max_bytes:
                return False
            known = self._entries.get(key)
            if known is not None:
                same = known.generation == ticket.generation and known.shows.of == shows.of
                if same and known.shows.position > shows.position:
                    return False
                self._drop(key)
            self._entries[key] = _Entry(value, size, expires, ticket.generation, shows)
            self._size += size
            while len(self._entries) > self._max_entries or self._size > self._max_bytes:
                self._drop(next(iter(self._entries)))
            return True

    def written(self, method: str) -> None:
        """A call of `method` has succeeded, or may have: drop what it makes void."""
        if method not in self._voided_by:
            return
        with self._lock:
            for voided in self._voided_by[method]:
                voided.generation += 1

    def snapshot(self) -> CacheSnapshot:
        """What it holds now, dead answers included until they are met."""
        with self._lock:
            return CacheSnapshot(len(self._entries), self._size, self._hits, self._misses)

    def _drop(self, key: CacheKey) -> None:
        self._size -= self._entries.pop(key).size
