"""What a process knows of the methods it calls: policy, breaker, latency, budget, answers.

The state of one (target, method) is found once per call by one dictionary look-up; what follows
from the contract is worked out when it is made, and again only when live policy has changed.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import RLock
from typing import Final

from google.protobuf.message import Message

from accord.contract.live_overrides import Overrides
from accord.contract.policy_types import Dark, Key, MethodPolicy
from accord.contract.registry import known
from accord.policies.breaker import Breaker, BreakerSnapshot
from accord.policies.budget import Budget, BudgetPolicy, BudgetSnapshot
from accord.policies.cache import AnswerCache, CacheSnapshot
from accord.policies.hedge import Hedge, HedgeSnapshot
from accord.policies.resume import ResumeLimits
from accord.policies.types import Code
from accord.telemetry.edges import Edges

MAX_KEPT: Final = 4096
"""States kept by a process; beyond, the oldest is forgotten. Only a proxy has so many."""

WAIT: Final = 0.001
"""Seconds after which an attempt looks again whether it is another backend's turn; it is made in
any case after so many:"""
MAX_WAITS: Final = 20

_ASK_AGAIN: Final = -1
"""Generation of a policy that may change without one: its method has no descriptor so far."""

_UNAVAILABLE: Final = frozenset({Code.UNAVAILABLE})


class Target:
    """What all methods of one target share."""

    __slots__ = ("budget", "cache", "lost_at", "name", "secure", "told_at", "turns", "writers")

    def __init__(self, name: str, budget: BudgetPolicy, clock: Callable[[], float]) -> None:
        self.name = name
        self.budget = Budget(budget, clock=clock)
        self.cache: AnswerCache[Callable[[], Message]] = AnswerCache(clock=clock)
        """Each makes its answer anew."""
        self.writers: frozenset[str] = frozenset()
        """Methods that make kept answers void."""
        self.lost_at = -math.inf
        """When a connection was last lost, which all calls on it tell, on the engine's clock."""
        self.told_at = -math.inf
        """When the log was last told that a handshake has failed, on the same clock."""
        self.secure = False
        """Whether it is called over TLS."""
        self.turns = 0
        """Attempts so far: gRPC's `round_robin` sends each to the next backend."""

    def waits(self, turn: int) -> Iterator[float]:
        """Seconds to wait, again and again, for an attempt that goes elsewhere than that of `turn`.

        It is sure of two backends, and of any even number: what is waited for is that another call
        makes an attempt, as one has done in between. 0: there was none before.
        """
        for _ in range(MAX_WAITS):
            if turn == 0 or (self.turns - turn) % 2 == 0:
                return
            yield WAIT


class MethodState:
    """One (target, method). The counters are for the operator."""

    __slots__ = ("attempt_time", "breaker", "caches", "calls", "fallbacks", "generation", "hedge",
                 "hits", "misses", "policy", "protected", "retries", "target",
                 "transient")  # fmt: skip

    policy: MethodPolicy
    breaker: Breaker | None
    hedge: Hedge | None
    caches: bool
    """Whether answers are kept."""
    protected: bool
    """Whether a repeat is safe without a key."""
    transient: frozenset[Code]
    """Codes after which another attempt is worth waiting for."""
    attempt_time: float | None
    """Seconds that the contract gives to an attempt."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.generation = _ASK_AGAIN
        """That of the overrides when they were asked for the policy."""
        self.calls = self.retries = self.fallbacks = self.hits = self.misses = 0

    def follow(
        self, policy: MethodPolicy, clock: Callable[[], float], random: Callable[[], float]
    ) -> None:
        """Take over a policy, with fresh state where it says something new."""
        before = getattr(self, "policy", None)
        self.policy = policy
        if before is None or before.breaker != policy.breaker:
            wanted = policy.breaker
            self.breaker = None if wanted is None else Breaker(wanted, clock=clock, random=random)
        if before is None or before.hedge != policy.hedge:
            self.hedge = Hedge(policy.hedge, clock=clock) if policy.hedge is not None else None
        self.caches = policy.cache is not None and Dark.CACHE not in policy.dark
        if policy.cache is not None:
            self.target.cache.declare(policy.method, policy.cache)
            self.target.writers |= {*policy.cache.invalidated_by}
        self.protected = policy.safe or policy.key is Key.NATURAL
        self.transient = policy.retry.codes if policy.retry is not None else _UNAVAILABLE
        self.attempt_time = policy.attempt_timeout or policy.timeout

    @property
    def remembers(self) -> bool:
        """Whether answers are kept, or make others void: what they say of themselves is read."""
        return self.caches or self.policy.method in self.target.writers


@dataclass(frozen=True, slots=True)
class RouteSnapshot:
    """One (target, method) at one moment; counts since the start of the process."""

    target: str
    method: str
    """As it travels: "/pkg.Service/Method"."""
    calls: int
    retries: int
    fallbacks: int
    breaker: BreakerSnapshot | None
    """None: the contract states none."""
    hedge: HedgeSnapshot | None
    """None: the method is not hedged."""
    cache_hits: int
    cache_misses: int


@dataclass(frozen=True, slots=True)
class TargetSnapshot:
    """One target at one moment."""

    target: str
    budget: BudgetSnapshot
    cache: CacheSnapshot


@dataclass(frozen=True, slots=True)
class ClientSnapshot:
    """What the clients of a process have learned."""

    routes: tuple[RouteSnapshot, ...]
    targets: tuple[TargetSnapshot, ...]


class MethodStates:
    """All that a process knows of the methods it calls."""

    def __init__(
        self,
        overrides: Overrides,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        budget: BudgetPolicy | None = None,
    ) -> None:
        self._overrides = overrides
        self._clock = clock
        self._random = random
        self._budget = budget or BudgetPolicy()
        self._targets: dict[str, Target] = {}
        self._states: dict[tuple[str, str], MethodState] = {}
        # Calls of grpc.aio and of threads, metrics and operators use one table; what changes it is
        # rare. Not even `list(table.items())` is safe without: it may collect garbage on its way.
        self._lock = RLock()
        self._caching: tuple[Target, ...] = ()
        """Targets of which answers are kept."""

    def find(self, target: str, method: str) -> MethodState:
        """The state of a method, with the policy in force now. Raises ContractError."""
        state = self._states.get((target, method))
        if state is None or state.generation != self._overrides.generation:
            with self._lock:
                state = self._current(target, method)
        return state

    def _current(self, target: str, method: str) -> MethodState:
        # Before the policy, which may be changing.
        generation = self._overrides.generation if known(method) else _ASK_AGAIN
        policy = self._overrides.policy(method)
        state = self._states.get((target, method))
        if state is None:
            state = MethodState(self._target(target))
            self._follow(state, policy)
            if len(self._states) >= MAX_KEPT:
                del self._states[next(iter(self._states))]
            self._states[target, method] = state  # complete: others may look at it
        elif state.policy is not policy:
            self._follow(state, policy)
        state.generation = generation
        return state

    def secure(self, name: str) -> None:
        """A target is called over TLS."""
        with self._lock:
            self._target(name).secure = True

    def _target(self, name: str) -> Target:
        target = self._targets.get(name)
        if target is None:
            if len(self._targets) >= MAX_KEPT:
                del self._targets[next(iter(self._targets))]
            target = self._targets[name] = Target(name, self._budget, self._clock)
        return target

    def _follow(self, state: MethodState, policy: MethodPolicy) -> None:
        state.follow(policy, self._clock, self._random)
        if policy.cache is not None and state.target not in self._caching:
            self._caching += (state.target,)

    def written(self, method: str) -> None:
        """A call of `method` has succeeded, or may have: kept answers that it voids are dropped."""
        for target in self._caching:
            target.cache.written(method)

    def snapshot(self) -> ClientSnapshot:
        """What is known now."""
        with self._lock:
            states, targets = tuple(self._states.items()), tuple(self._targets.items())
        return ClientSnapshot(
            tuple(
                RouteSnapshot(
                    target,
                    method,
                    state.calls,
                    state.retries,
                    state.fallbacks,
                    state.breaker.snapshot() if state.breaker is not None else None,
                    state.hedge.snapshot() if state.hedge is not None else None,
                    state.hits,
                    state.misses,
                )
                for (target, method), state in states
            ),
            tuple(
                TargetSnapshot(name, target.budget.snapshot(), target.cache.snapshot())
                for name, target in targets
            ),
        )


@dataclass(frozen=True, slots=True)
class Environment:
    """What the engine of a process decides with. `count` takes a method and what was decided."""

    clock: Callable[[], float]
    random: Callable[[], float]
    methods: MethodStates
    count: Callable[[str, str], None]
    handshake_failed: Callable[[Target, str, float], None]
    """Told of a target, the details of the status, and when it was."""
    edges: Edges
    resume: ResumeLimits = field(default_factory=ResumeLimits)
    lock: RLock = field(default_factory=RLock)
    """Held while anything is decided: calls of `grpc.aio` and of threads share counters."""
