"""The cache of answers."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from accord.policies.cache import (
    MAX_SEEN,
    AnswerCache,
    CacheKey,
    CachePolicy,
    CacheSnapshot,
    Ticket,
)
from accord.policies.consistency import Token
from tests.accord.policies.kit import Clock

GET = "/shop.Customers/Get"
LIST = "/shop.Customers/List"
WRITE = "/shop.Customers/Update"
KEY = CacheKey("orders", GET, b"1")


def cache(**bounds: int) -> tuple[AnswerCache[str], Clock]:
    """A cache of answers that live 30 s and that a write makes void."""
    clock = Clock()
    found: AnswerCache[str] = AnswerCache(clock=clock, **bounds)
    found.declare(GET, CachePolicy(30.0, (WRITE,)))
    found.declare(LIST, CachePolicy(5.0))
    return found, clock


class Caching(RuleBasedStateMachine):
    """Asking, answering, writing and looking up, in any order, against a model."""

    principals = st.sampled_from(["orders", "payments"])
    methods = st.sampled_from([GET, LIST])
    prints = st.sampled_from([b"1", b"2", b"3"])

    def __init__(self) -> None:
        super().__init__()
        self.cache, self.clock = cache(max_entries=4, max_bytes=100)
        self.asked: list[tuple[CacheKey, Ticket, int]] = []
        self.writes = 0
        self.number = 0
        # value -> (key, asked at, number of writes when asked, position)
        self.known: dict[str, tuple[CacheKey, float, int, int]] = {}

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(principal=principals, method=methods, fingerprint=prints)
    def ask(self, principal: str, method: str, fingerprint: bytes) -> None:
        key = CacheKey(principal, method, fingerprint)
        self.asked.append((key, self.cache.ask(method), self.writes))

    @rule(data=st.data(), size=st.integers(0, 120), position=st.integers(0, 5))
    def answer(self, data: st.DataObject, size: int, position: int) -> None:
        if self.asked:
            index = data.draw(st.integers(0, len(self.asked) - 1))
            key, ticket, writes = self.asked.pop(index)
            self.number += 1
            value = f"answer {self.number}"
            self.known[value] = (key, ticket.asked_at, writes, position)
            self.cache.store(key, value, size=size, ticket=ticket, shows=Token("it", position))

    @rule()
    def write(self) -> None:
        self.writes += 1
        self.cache.written(WRITE)

    @rule(principal=principals, method=methods, fingerprint=prints, at_least=st.integers(0, 5))
    def lookup(self, principal: str, method: str, fingerprint: bytes, at_least: int) -> None:
        key = CacheKey(principal, method, fingerprint)
        value = self.cache.lookup(key, at_least=Token("it", at_least))
        if value is not None:
            whose, asked_at, writes, position = self.known[value]
            assert key == whose
            assert self.clock.now < asked_at + (30.0 if method == GET else 5.0)
            assert position >= at_least
            assert method == LIST or writes == self.writes

    @invariant()
    def bounded(self) -> None:
        snapshot = self.cache.snapshot()
        assert 0 <= snapshot.entries <= 4
        assert 0 <= snapshot.size <= 100


TestCaching = Caching.TestCase


def kept(held: AnswerCache[str], key: CacheKey, value: str, size: int = 1) -> bool:
    """Whether an answer that arrives at once is kept."""
    return held.store(key, value, size=size, ticket=held.ask(key.method))


def test_served_until_it_expires() -> None:
    """An answer is served for its ttl, counted from when it was asked for, and no longer."""
    held, clock = cache()
    ticket = held.ask(GET)
    clock.now = 10.0
    assert held.store(KEY, "a", size=1, ticket=ticket)
    clock.now = 29.9
    assert held.lookup(KEY) == "a"
    clock.now = 30.0
    assert held.lookup(KEY) is None
    assert held.snapshot().entries == 0


def test_an_answer_that_is_late_is_not_kept() -> None:
    """An answer that took longer than its ttl has expired already."""
    held, clock = cache()
    ticket = held.ask(GET)
    clock.now = 30.0
    assert not held.store(KEY, "a", size=1, ticket=ticket)


def test_no_other_principal_is_served() -> None:
    """The same request of another principal, or another method's, finds nothing."""
    held, _ = cache()
    kept(held, KEY, "a")
    assert held.lookup(KEY._replace(principal="payments")) is None
    assert held.lookup(KEY._replace(method=LIST)) is None
    assert held.lookup(KEY._replace(fingerprint=b"2")) is None
    assert held.lookup(KEY) == "a"


def test_a_write_drops_what_it_makes_void() -> None:
    """After a write the method's answers are gone for every principal, other methods' are not."""
    held, _ = cache()
    other = CacheKey("payments", GET, b"1")
    listed = CacheKey("orders", LIST, b"1")
    for key in (KEY, other, listed):
        kept(held, key, "a")
    held.written(WRITE)
    held.written("/shop.Customers/Unknown")
    assert [held.lookup(key) for key in (KEY, other, listed)] == [None, None, "a"]


def test_an_answer_overtaken_by_a_write_is_not_kept() -> None:
    """What was asked for before a write and arrives after it shows the old state."""
    held, _ = cache()
    ticket = held.ask(GET)
    held.written(WRITE)
    assert not held.store(KEY, "old", size=1, ticket=ticket)
    assert held.lookup(KEY) is None


def test_older_than_the_token_is_passed_by() -> None:
    """A caller that has seen position 7 is not served an older answer; others still are."""
    held, _ = cache()
    held.store(KEY, "six", size=1, ticket=held.ask(GET), shows=Token("it", 6))
    assert held.lookup(KEY, at_least=Token("it", 7)) is None
    assert held.lookup(KEY, at_least=Token("another", 1)) is None
    assert held.lookup(KEY, at_least=Token("it", 6)) == "six"
    held.store(KEY, "eight", size=1, ticket=held.ask(GET), shows=Token("it", 8))
    assert not held.store(KEY, "seven", size=1, ticket=held.ask(GET), shows=Token("it", 7))
    assert held.lookup(KEY, at_least=Token("it", 7)) == "eight"


def test_what_the_process_has_seen_counts_for_all_its_callers() -> None:
    """After any answer that shows position 9 no older one is served, and what is asked knows why.

    Of things that were seen, the most recent are remembered.
    """
    held, _ = cache()
    held.store(KEY, "eight", size=1, ticket=held.ask(GET), shows=Token("it", 8))
    for token in (Token("it", 8), Token("another", 99)):
        held.saw(token)
    assert (held.lookup(KEY), held.seen(KEY)) == ("eight", None)
    held.saw(Token("it", 9))
    held.saw(Token("it", 3))
    assert (held.lookup(KEY), held.seen(KEY)) == (None, Token("it", 9))
    held.store(KEY, "nine", size=1, ticket=held.ask(GET), shows=Token("it", 9))
    assert (held.lookup(KEY), held.seen(KEY)) == ("nine", None)
    held.saw(Token("it", 10))
    for number in range(MAX_SEEN):
        held.saw(Token(f"thing {number}", 1))
    assert held.lookup(KEY) == "nine"


def test_a_server_shortens_the_time_of_an_answer() -> None:
    """What the server says of one answer can shorten its time, to nothing, and not extend it."""
    held, clock = cache()
    assert not held.store(KEY, "open", size=1, ticket=held.ask(GET), ttl=0)
    assert held.lookup(KEY) is None
    held.store(KEY, "short", size=1, ticket=held.ask(GET), ttl=2)
    clock.now += 1.9
    assert held.lookup(KEY) == "short"
    clock.now += 0.2
    assert held.lookup(KEY) is None
    held.store(KEY, "long", size=1, ticket=held.ask(GET), ttl=1000)
    clock.now += 30.0
    assert held.lookup(KEY) is None


def test_least_recently_used_go_first() -> None:
    """Entries and bytes are bounded, and what was used lately stays."""
    held, _ = cache(max_entries=2, max_bytes=10)
    one, two, three = (KEY._replace(fingerprint=name) for name in (b"1", b"2", b"3"))
    kept(held, one, "1", 4)
    kept(held, two, "2", 4)
    assert held.lookup(one) == "1"
    kept(held, three, "3", 4)
    assert [held.lookup(key) for key in (one, two, three)] == ["1", None, "3"]
    kept(held, two, "2", 9)
    assert (held.snapshot().entries, held.snapshot().size) == (1, 9)
    assert not kept(held, one, "1", 11)


def test_another_policy_starts_afresh() -> None:
    """A live change of the ttl drops what was kept under the old one; no change drops nothing."""
    held, _ = cache()
    kept(held, KEY, "a")
    held.declare(GET, CachePolicy(30.0, (WRITE,)))
    assert held.lookup(KEY) == "a"
    held.declare(GET, CachePolicy(1.0))
    assert held.lookup(KEY) is None
    kept(held, KEY, "b")
    held.written(WRITE)
    assert held.lookup(KEY) == "b"


def test_what_it_says_of_itself() -> None:
    """Hits and misses are counted from 0; what has expired, or is passed by, is a miss."""
    held, clock = cache()
    assert held.snapshot() == CacheSnapshot(entries=0, size=0, hits=0, misses=0)
    assert held.lookup(KEY) is None
    kept(held, KEY, "a", 7)
    assert held.lookup(KEY) == "a"
    assert held.lookup(KEY, at_least=Token("it", 1)) is None
    assert held.snapshot() == CacheSnapshot(entries=1, size=7, hits=1, misses=2)
    clock.now += 30.0
    assert held.lookup(KEY) is None
    assert held.snapshot() == CacheSnapshot(entries=0, size=0, hits=1, misses=3)
