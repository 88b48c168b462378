"""How users use the library, for mypy: every name that they may import, once at least."""

import os
import random
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, assert_type

import grpc
import grpc.aio
from google.protobuf.message import Message

from accord import (
    Aborted,
    AlreadyExists,
    CallContext,
    ContractError,
    DeadlineExceeded,
    EventPolicy,
    FailedPrecondition,
    FieldViolation,
    Idempotency,
    IdempotencyConflict,
    IdempotencyStore,
    InvalidArgument,
    Limits,
    Mesh,
    MethodPolicy,
    NotFound,
    OutOfRange,
    PermissionDenied,
    Precondition,
    Resource,
    ResourceExhausted,
    Scope,
    ServiceError,
    StoredAnswer,
    SyncIdempotencyStore,
    Unauthenticated,
    Unavailable,
    Validator,
    cache_for,
    carry,
    check_service,
    current,
    deadline,
    detach,
    event_policy,
    failure_of,
    fingerprint,
    idempotency_key,
    method_policy,
    shows,
    trace_headers,
    trace_id,
    use_trace,
)
from accord.admin.mesh_service import CONTRACT, Audit, Intervention, serve
from accord.client.service_config import ServiceConfigError
from accord.context import ANONYMOUS, without_user
from accord.contract import (
    LIVE_FIELDS,
    CompensationPolicy,
    Dark,
    EdgePolicy,
    FloorPolicy,
    Key,
    LimitPolicy,
    Reading,
    ResumePolicy,
    SagaPolicy,
    StreamPolicy,
    live_policy,
    merge_options,
    read_event,
    read_method,
)
from accord.contract.live_overrides import (
    FileSource,
    Layer,
    OverrideRefused,
    PolicySource,
    PolicyStore,
    parse,
)
from accord.contract.names import described, meant, method_name
from accord.edge import Authenticator, Edge, EdgeLimits, KeySet, routes_of
from accord.edge import Caller as Outsider
from accord.edge import Route as OuterRoute
from accord.edge.headers import accepts as accepts_type
from accord.edge.headers import timeout as timeout_said
from accord.edge.problem import EdgeError, Failure, failure
from accord.errors import CODES, DETAILS_KEY, Translate
from accord.identity import LAYOUTS, Bundle, Identity, IdentityError
from accord.identity.users import (
    ISSUERS,
    LEEWAY,
    MAX_LIFE,
    USER_KEY,
    User,
    UserTokens,
    issue,
)
from accord.policies.breaker import BreakerPolicy
from accord.policies.budget import BudgetPolicy
from accord.policies.cache import CachePolicy
from accord.policies.consistency import Token
from accord.policies.fault_injection import FaultPolicy
from accord.policies.hedge import HedgePolicy
from accord.policies.rate_limit import RatePolicy
from accord.policies.retry import Retry, RetryPolicy, Stop
from accord.policies.types import Code, Priority
from accord.server.authorization import EVERYBODY, NO_IDENTITY, denial, opened, ruling
from accord.stores import (
    KEPT,
    MIGRATIONS,
    DbApiStore,
    SqliteStore,
    Tx,
    find,
    key,
    record,
    settle,
    settled,
    sweep,
)
from accord.sync.mesh import SyncMesh
from accord.telemetry import HEADERS
from accord.testing import (
    Attempt,
    Clock,
    Draws,
    FaultyServer,
    Step,
    drop,
    fail,
    hang,
    no_waiting,
    reply,
)
from accord.testing import serve as serve_for_a_test
from accord.xds import (
    ControlPlane,
    Ejection,
    Route,
    RouteError,
    Rule,
    TargetState,
    XdsError,
    remove_socket,
)
from accord.xds import (
    parse as parse_routes,
)


class Answers:
    """An idempotency store."""

    async def lookup(self, scope: Scope) -> StoredAnswer | None:
        assert_type(scope.item(1), Scope)
        return StoredAnswer(fingerprint(scope.method, b""), response=b"")


class SyncAnswers:
    """The same for servers with threads."""

    def lookup(self, scope: Scope) -> StoredAnswer | None:
        return None


STORE: IdempotencyStore = Answers()
SYNC_STORE: SyncIdempotencyStore = SyncAnswers()


def valid(message: Message) -> Sequence[FieldViolation]:
    return [] if message.IsInitialized() else [FieldViolation("", "is not complete")]


def translate(error: Exception) -> ServiceError | None:
    return Unavailable("DATABASE_AWAY", 1.0) if isinstance(error, OSError) else None


VALIDATOR: Validator = valid
TRANSLATE: Translate = translate
ERRORS: Final[tuple[ServiceError, ...]] = (
    Aborted("LOST", "try again", retry_after=1.0),
    AlreadyExists(resource=Resource("parcel", "7")),
    DeadlineExceeded(message="too late"),
    FailedPrecondition("SHIPPED", "is on its way", Precondition("STATE", "7", "is shipped")),
    InvalidArgument(("parcel_id", "is empty")),
    NotFound(resource=Resource("parcel", "7")),
    OutOfRange("POSITION", "does not exist yet"),
    PermissionDenied("NOT_YOURS"),
    Unauthenticated("TOKEN_EXPIRED"),
    ResourceExhausted("QUOTA", 1.0),
    ServiceError(CODES[10], "LOST", resource=Resource("parcel", "7")),
)


def mesh() -> Mesh:
    """A process takes part."""
    limits = Limits(streams=100)
    try:
        return Mesh(
            "desk",
            targets={"parcels": "127.0.0.1:9070"},
            validator=VALIDATOR,
            idempotency=STORE,
            translate=TRANSLATE,
            budget=BudgetPolicy(percent=10),
            limits=limits,
            clock=Clock(),
            random=Draws(0.5),
        )
    except ServiceConfigError as error:
        raise SystemExit(str(error)) from None


async def audit(intervention: Intervention) -> None:
    assert_type(intervention.reason, str)


AUDIT: Audit = audit


async def aio(servicer: Callable[[grpc.aio.Server], None], store: PolicyStore) -> None:
    """Serve and call with grpc.aio."""
    found = mesh()
    server = found.server(options=(("grpc.max_connection_age_ms", 1000),))
    assert serve(found, server, store=store, audit=AUDIT) == CONTRACT
    servicer(server)
    await server.start()
    assert_type(found.channel("parcels"), grpc.aio.Channel)
    grpc.aio.insecure_channel("127.0.0.1:9070", interceptors=found.client_interceptors())
    grpc.aio.server(interceptors=found.server_interceptors())
    await server.stop(grace=5)
    await found.close()


def threads(servicer: Callable[[grpc.Server], None]) -> None:
    """Serve and call with threads."""
    found: SyncMesh = mesh().sync
    server = found.server(idempotency=SYNC_STORE, max_workers=10)
    servicer(server)
    server.start()
    channel = grpc.insecure_channel("127.0.0.1:9070")
    grpc.intercept_channel(channel, *found.client_interceptors())
    server.stop(grace=5).wait()


async def handler(request: Message, nested: Callable[[Message], Awaitable[Message]]) -> Message:
    """What a handler asks and does."""
    call = current()
    assert_type(call, CallContext | None)
    if call is not None and call.principal != ANONYMOUS and call.priority is Priority.CRITICAL:
        assert_type(call.idempotency, Idempotency | None)
        assert_type(call.remaining(), float | None)
    work = carry(trace_id)
    with deadline(2.0), detach(), use_trace(trace_headers()):
        assert set(trace_headers()) <= HEADERS
        work()
    assert_type(idempotency_key("7"), tuple[tuple[str, str], ...])
    assert_type(shows("parcels/7", 3) + cache_for(0), tuple[tuple[str, str], ...])
    assert str(Token("parcels/7", 3)) == "parcels/7=3"
    try:
        return await nested(request)
    except grpc.RpcError as error:
        found = failure_of(error)
        if found is not None and found.reason in {"IDEMPOTENCY_CONFLICT", DETAILS_KEY}:
            raise IdempotencyConflict from error
        raise


def charge(tx: Tx, request: Message) -> Message:
    """An effect with its answer, in a transaction of one's own and in one of a store."""
    scope = Scope("desk", "/parcels.v1.ParcelService/Send", key() or "")
    if find(tx, scope, KEPT) is None and settled(tx, "7") is None:
        record(tx, None, reference="7")
        settle(tx, "7", request)
    assert_type(sweep(tx, KEPT), int)
    for store in (SqliteStore("parcels.db"), DbApiStore(lambda: sqlite3.connect("parcels.db"))):
        Mesh("parcels", idempotency=store)
        assert_type(store.commit(lambda connection: request), Message)
    raise SystemExit(MIGRATIONS)


def named(name: str) -> str:
    """What a name that came from somewhere means here."""
    found = described(method_name(name))
    return meant(name, ["pkg.Service/Method"]) if found is None else found.full_name


def contract(message: Message) -> tuple[MethodPolicy, EventPolicy | None]:
    """What a contract says."""
    try:
        check_service("parcels.v1.ParcelService")
    except ContractError as error:
        raise SystemExit(error.problem) from None
    policy = method_policy("/parcels.v1.ParcelService/GetParcel")
    assert_type(policy.key, Key)
    if policy.timeout is None and policy.breaker is None:
        raise SystemExit(LIVE_FIELDS)
    return policy, event_policy(message)


READ: Final = (Reading, live_policy, merge_options, read_event, read_method)
POLICIES: Final = (
    BreakerPolicy(),
    CachePolicy(ttl=30),
    CompensationPolicy("/parcels.v1.ParcelService/Cancel"),
    EdgePolicy("GET", "/v1/parcels/{parcel_id}", public=True),
    FaultPolicy(abort=Code.UNAVAILABLE),
    FloorPolicy(),
    HedgePolicy(),
    LimitPolicy(rate=RatePolicy(10, 20)),
    ResumePolicy("after_sequence", "sequence"),
    RetryPolicy(3, codes=frozenset({Code.UNAVAILABLE})),
    SagaPolicy(60, ()),
    StreamPolicy(),
    Dark.RETRY,
)


def certified(folder: Path) -> tuple[grpc.ServerCredentials, Bundle]:
    """Mutual TLS from the files of a folder, in any of the layouts."""
    assert any((folder / names[0]).exists() for names in LAYOUTS)
    try:
        identity = Identity.from_folder(folder, revoked=folder / "revoked.txt")
    except IdentityError as error:
        raise SystemExit(str(error)) from None
    return identity.server_credentials(), identity.bundle


def user(identity: Identity, token: str) -> tuple[User, tuple[str, str]]:
    """For whom a call is made, and for whom the next one is."""
    tokens = UserTokens(identity, issuers=[*ISSUERS, "kiosk"])
    with without_user():
        own = issue(identity.bundle, "17", ["customer"], life=MAX_LIFE - LEEWAY)
    return tokens.read(token), (USER_KEY, own)


def routed(file: Path) -> list[TargetState]:
    """A control plane of one's own: what it routes where."""
    try:
        canary = Rule({"v2": 1}, headers={"x-canary": "yes"}, fallback=("v1",))
        versions = {"v1": "10.0.0.7:9051", "v2": "dns:///orders-v2:9051"}
        route = Route(versions, {"v1": 95, "v2": 5}, (canary,), ejection=Ejection(percent=30))
        plane = ControlPlane("shop.internal", routes=file)
        plane.add("orders", route)
        plane.add("payments", parse_routes(file.read_text())["payments"])
    except (RouteError, XdsError) as error:
        raise SystemExit(str(error)) from None
    return plane.state()


def may(caller: str, method: str) -> str:
    """Why a caller may, or may not, call a method."""
    policy = method_policy(method)
    if opened(policy.method) or EVERYBODY in ruling(policy).allow:
        return "everybody may"
    found = denial(policy, caller, identified=True)
    return "" if found is None or found.reason == NO_IDENTITY else found.message


async def live(found: Mesh) -> None:
    """Live policy from a file."""
    source: PolicySource = FileSource(Path("policy.json"))
    try:
        found.control.overrides.set("/parcels.v1.ParcelService/GetParcel", parse("", "{}"))
    except OverrideRefused as refusal:
        raise SystemExit(refusal.problem) from None
    await found.control.overrides.follow(source, Layer.FILE)


async def tested(stub: Callable[[grpc.aio.Channel], Message], servicer: Message) -> list[Attempt]:
    """A test of one's own."""
    steps: list[Step] = [fail("UNAVAILABLE"), hang(), drop(), reply(servicer)]
    with no_waiting(), FaultyServer() as faulty:
        faulty.script("parcels.v1.ParcelService/GetParcel", *steps)
        async with serve_for_a_test(servicer, stub, mesh()) as found:
            assert_type(found, Message)
        return faulty.attempts


def attempts_of_your_own(failed: Callable[[], Code]) -> float | Stop:
    """A policy decides for whoever asks it: seconds to wait, or why not to."""
    retry = Retry(RetryPolicy(3), repeatable=True, budget=None, random=random.random)
    return retry.failed(failed(), remaining=None)


def ended(code: int) -> None:
    """A process that ends without what the interpreter does at its end."""
    remove_socket()
    os._exit(code)


def outside(found: Mesh) -> Edge:
    """An edge with a bound of one's own."""
    keys = KeySet.from_url("https://login.example/jwks")
    authenticator = Authenticator(keys, issuer="https://login.example", audience="parcels")
    limits = EdgeLimits(body=64 * 1024)
    return Edge(found, routes_of(), authenticator=authenticator, limits=limits)


async def told(edge: Edge, scope: dict[str, str], route: OuterRoute) -> Failure | Outsider | None:
    """Who may call, for an application beside the edge's routes."""
    try:
        caller = await edge.caller(scope)
        edge.permit(scope, caller, route)
    except EdgeError as error:
        return failure(error, "edge")
    return caller


def of_a_mounted_page(headers: Mapping[str, str]) -> tuple[bool, float | None]:
    """What a client asks for, as routes read it."""
    return accepts_type(headers.get("accept", ""), "text/html"), timeout_said(headers, "x")
