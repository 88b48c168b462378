"""What a process knows of the methods it calls: policy, breaker, latency, budget, answers.

A route is one (target, method). It is found once per call by one dictionary look-up; what follows
from the contract is worked out when the route is made, and again only when live policy has changed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from threading import RLock
from typing import Any, Final

from accord.contract.policy import Dark, Key, MethodPolicy
from accord.contract.registry import method_policy
from accord.policies.breaker import Breaker, BreakerSnapshot
from accord.policies.budget import Budget, BudgetPolicy, BudgetSnapshot
from accord.policies.cache import AnswerCache, CacheSnapshot
from accord.policies.hedge import Hedge, HedgeSnapshot
from accord.policies.types import Code

MAX_ROUTES: Final = 4096
"""Routes kept by a process; beyond, the oldest is forgotten. Only a proxy has so many."""

_UNAVAILABLE: Final = frozenset({Code.UNAVAILABLE})


class Target:
    """What all methods of one target share."""

    __slots__ = ("budget", "cache", "name")

    def __init__(self, name: str, budget: BudgetPolicy, clock: Callable[[], float]) -> None:
        self.name = name
        self.budget = Budget(budget, clock=clock)
        self.cache: AnswerCache[Any] = AnswerCache(clock=clock)


class Route:
    """One (target, method). The counters are for the operator."""

    __slots__ = ("attempt_time", "breaker", "caches", "calls", "fallbacks", "hedge", "hits",
                 "misses", "policy", "protected", "retries", "target", "transient")  # fmt: skip

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
        self.calls = self.retries = self.fallbacks = self.hits = self.misses = 0

    def follow(
        self, policy: MethodPolicy, clock: Callable[[], float], random: Callable[[], float]
    ) -> None:
        """Take over a policy, with fresh state where it says something new."""
        before = getattr(self, "policy", None)
        self.policy = policy
        if before is None or before.breaker != policy.breaker:
            # gRPC's own services and strangers have no contract: nothing says they may be refused.
            self.breaker = (
                Breaker(policy.breaker, clock=clock, random=random) if policy.declared else None
            )
        if before is None or before.hedge != policy.hedge:
            self.hedge = Hedge(policy.hedge, clock=clock) if policy.hedge is not None else None
        self.caches = policy.cache is not None and Dark.CACHE not in policy.dark
        if policy.cache is not None:
            self.target.cache.declare(policy.method, policy.cache)
        self.protected = policy.safe or policy.key is Key.NATURAL
        self.transient = policy.retry.codes if policy.retry is not None else _UNAVAILABLE
        self.attempt_time = policy.attempt_timeout or policy.timeout


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
    """None: the method has no contract."""
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


class Routes:
    """All routes of a process. `policy_of` gives the same object until a policy changes."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        random: Callable[[], float],
        policy_of: Callable[[str], MethodPolicy] = method_policy,
        budget: BudgetPolicy | None = None,
    ) -> None:
        self._clock = clock
        self._random = random
        self._policy_of = policy_of
        self._budget = budget or BudgetPolicy()
        self._targets: dict[str, Target] = {}
        self._routes: dict[tuple[str, str], Route] = {}
        # Calls of grpc.aio and of threads, metrics and operators use one table; what changes it is
        # rare. Not even `list(table.items())` is safe without: it may collect garbage on its way.
        self._lock = RLock()
        self._caching: tuple[Target, ...] = ()
        """Targets of which answers are kept."""

    def find(self, target: str, method: str) -> Route:
        """The route, with the policy in force now. Raises ContractError."""
        policy = self._policy_of(method)
        route = self._routes.get((target, method))
        if route is None or route.policy is not policy:
            with self._lock:
                route = self._routes.get((target, method)) or self._add(target, method, policy)
                if route.policy is not policy:
                    self._follow(route, policy)
        return route

    def _add(self, target: str, method: str, policy: MethodPolicy) -> Route:
        shared = self._targets.get(target)
        if shared is None:
            if len(self._targets) >= MAX_ROUTES:
                del self._targets[next(iter(self._targets))]
            shared = self._targets[target] = Target(target, self._budget, self._clock)
        route = Route(shared)
        self._follow(route, policy)
        if len(self._routes) >= MAX_ROUTES:
            del self._routes[next(iter(self._routes))]
        self._routes[target, method] = route  # complete: others may look at it
        return route

    def _follow(self, route: Route, policy: MethodPolicy) -> None:
        route.follow(policy, self._clock, self._random)
        if policy.cache is not None and route.target not in self._caching:
            self._caching += (route.target,)

    def written(self, method: str) -> None:
        """A call of `method` has succeeded, or may have: kept answers that it voids are dropped."""
        for target in self._caching:
            target.cache.written(method)

    def snapshot(self) -> ClientSnapshot:
        """What is known now."""
        with self._lock:
            routes, targets = tuple(self._routes.items()), tuple(self._targets.items())
        return ClientSnapshot(
            tuple(
                RouteSnapshot(
                    target,
                    method,
                    route.calls,
                    route.retries,
                    route.fallbacks,
                    route.breaker.snapshot() if route.breaker is not None else None,
                    route.hedge.snapshot() if route.hedge is not None else None,
                    route.hits,
                    route.misses,
                )
                for (target, method), route in routes
            ),
            tuple(
                TargetSnapshot(name, target.budget.snapshot(), target.cache.snapshot())
                for name, target in targets
            ),
        )
