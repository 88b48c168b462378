"""What a contract says about an RPC or an event: frozen. What it does not say is off."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final

from accord.policies.breaker import BreakerPolicy
from accord.policies.cache import CachePolicy
from accord.policies.hedge import HedgePolicy
from accord.policies.rate_limit import RatePolicy
from accord.policies.retry import RetryPolicy
from accord.policies.types import Priority

_FIELD: Final = re.compile(r"\{(\w+)\}")


class ContractError(Exception):
    """A contract contradicts itself. Raised at start-up or at the first use of a method."""

    def __init__(self, file: str, element: str, field: str, problem: str) -> None:
        super().__init__(file, element, field, problem)
        self.file = file
        self.element = element
        self.field = field
        self.problem = problem

    @property
    def finding(self) -> str:
        """What is wrong, whoever knows where; a problem without a field is a sentence."""
        return f"{self.field}: {self.problem}" if self.field else self.problem

    def __str__(self) -> str:
        return f"{self.file}: {self.element}: {self.finding}"


def too_short(what: str, seconds: float, floor: float) -> str:
    """What an operator is told whose change is below the contract's floor."""
    return f"{what} of {seconds:g} s is below the contract's floor of {floor:g} s"


def too_few(attempts: int, floor: int) -> str:
    """The same of attempts."""
    tried = "a single attempt is" if attempts == 1 else f"{attempts} attempts are"
    return f"{tried} below the contract's floor of {floor} attempts"


class Key(Enum):
    """What makes a repeated call safe."""

    NONE = 0
    """Nothing is promised."""
    REQUIRED = 1
    """The caller must send a key."""
    NATURAL = 2
    """The request says it all; a key is obeyed when it is sent."""


class Dark(Enum):
    """Policies that live policy may switch to dark mode: they decide and count, but do not act.

    Authorisation, validation and idempotency are not among them: they may not be weakened.
    """

    DEPTH = 1
    RATE_LIMIT = 2
    CONCURRENCY_LIMIT = 3
    BREAKER = 4
    RETRY = 5
    RETRY_BUDGET = 6
    HEDGE = 7
    CACHE = 8


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """Server-side admission."""

    priority: Priority = Priority.DEFAULT
    rate: RatePolicy | None = None
    max_concurrent: float = math.inf
    """Calls at work at once in one process."""


@dataclass(frozen=True, slots=True)
class ShadowPolicy:
    """Copies of calls to another target, of which nobody waits for the answer."""

    target: str
    percent: int
    """Of the calls: 1 to 100."""
    max_concurrent: int = 10
    """Copies on their way at once; what is beyond is not sent."""


@dataclass(frozen=True, slots=True)
class CompensationPolicy:
    """The RPC that undoes this one; `fill` maps its request's fields to where they come from."""

    method: str
    fill: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ResumePolicy:
    """The resume token of a server stream."""

    request_field: str
    response_field: str


@dataclass(frozen=True, slots=True)
class StreamPolicy:
    """Bounds of a stream in seconds; `inf`, which nobody states, means none."""

    max_lifetime: float = math.inf
    idle: float = math.inf
    keepalive: float = math.inf
    not_resumable: str = ""
    """Why a stream that breaks cannot be continued; empty if nobody says."""


@dataclass(frozen=True, slots=True)
class SagaPolicy:
    """The steps that an RPC sets off: full method names, in order. Times are seconds."""

    timeout: float
    steps: tuple[str, ...]
    pivot: str = ""
    """The step after which there is no way back; empty if every step can be undone."""


@dataclass(frozen=True, slots=True)
class FloorPolicy:
    """What live policy may not go below."""

    timeout: float = 0.0
    max_attempts: int = 0

    def broken_by(self, timeout: float | None, attempts: int) -> str:
        """What is below it, a sentence for who has changed that; empty: nothing is."""
        if timeout is not None and timeout < self.timeout:
            return too_short("a timeout", timeout, self.timeout)
        return too_few(attempts, self.max_attempts) if attempts < self.max_attempts else ""


@dataclass(frozen=True, slots=True)
class EdgePolicy:
    """How an RPC is reached from outside of the mesh."""

    verb: str
    """GET, PUT, POST, DELETE or PATCH."""
    path: str
    """With the names of fields in it: "/v1/orders/{order_id}:cancel"."""
    scopes: frozenset[str] = frozenset()
    """What a token must state, all of it; empty if it is `public`."""
    public: bool = False
    """Whether a call needs no token."""
    rate: RatePolicy | None = None
    """Of one user; None: the gateway's."""

    @property
    def fields(self) -> list[str]:
        """The fields of the request that are in the path, in order."""
        return _FIELD.findall(self.path)


@dataclass(frozen=True, slots=True)
class MethodPolicy:
    """All that a contract says about one RPC. Times are seconds.

    None, or empty: its field is absent, for the RPC and in its service's defaults, so it is off.
    """

    method: str
    """Full name as it travels: "/pkg.Service/Method"."""
    declared: bool = False
    """Whether the contract says anything: health, reflection and strangers' methods do not."""
    client_streaming: bool = False
    server_streaming: bool = False
    safe: bool = False
    """NO_SIDE_EFFECTS or IDEMPOTENT by protobuf's own `idempotency_level`."""
    timeout: float | None = None
    """A service's default is not for a stream that the server writes."""
    attempt_timeout: float | None = None
    retry: RetryPolicy | None = None
    hedge: HedgePolicy | None = None
    breaker: BreakerPolicy | None = None
    limit: LimitPolicy | None = None
    """None: its calls are never shed, and their priority is their caller's."""
    allow: frozenset[str] = frozenset()
    """Empty: everybody, or nobody where the mesh wants identities."""
    calls: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Full method name -> seconds that this RPC allows for a nested call of it."""
    cache: CachePolicy | None = None
    compensation: CompensationPolicy | None = None
    saga: SagaPolicy | None = None
    resume: ResumePolicy | None = None
    stream: StreamPolicy = StreamPolicy()
    key: Key = Key.NONE
    errors: frozenset[str] = frozenset()
    max_depth: int | None = None
    floor: FloorPolicy = FloorPolicy()
    edge: EdgePolicy | None = None
    """None: it is not reached from outside."""
    dark: frozenset[Dark] = frozenset()
    """Policies that only decide and count; set by live policy alone."""
    shadow: ShadowPolicy | None = None
    """Set by live policy alone."""

    @property
    def streaming(self) -> bool:
        """Whether its requests or its responses are a stream."""
        return self.client_streaming or self.server_streaming

    @property
    def idempotent(self) -> bool:
        """Whether sending the request twice is safe, without or with the key it requires."""
        return self.safe or self.key is not Key.NONE


@dataclass(frozen=True, slots=True)
class EventPolicy:
    """What makes a message an event."""

    subject: str
    version: int
    key: str
