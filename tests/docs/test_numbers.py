"""The numbers in the sentences of the pages are those of the code.

Tables of defaults have tests of their own (`test_defaults.py`, `test_policies.py`), and so has what
the numbers make of behaviour: `tests/accord/policies`, `test_promises.py` of the other folders.
"""

import re
from collections.abc import Sequence
from typing import Final

import pytest

from accord import _files, error_details, errors, mesh, stores
from accord.admin import mesh_service
from accord.client import method_state, service_config
from accord.contract import method_policy, options_reader
from accord.policies import (
    breaker,
    deadline,
    hedge,
    idempotency,
    latency_limit,
    limiter,
    queue,
    resume,
    retry,
    rounds,
    stream_share,
)
from accord.policies.types import Priority
from accord.server import registration, state, timeouts
from accord.telemetry import instrumentation
from accord.v1 import policy_pb2
from accord_runtime import process
from accord_runtime.admin import policy_store, traces
from accord_runtime.events import (
    audit,
    broker,
    command_sender,
    inbox,
    notifier,
    outbox,
    publisher,
    pull,
    work_queue,
)
from accord_runtime.grpc import consistency, page_tokens, validation
from accord_runtime.jobs import jobs
from accord_runtime.saga import orchestrator
from accord_runtime.telemetry import setup, span_store
from accord_runtime.views import views
from accord_runtime.work import backlog, executor, ownership, table, unserved
from services.analytics import servicer as analytics
from services.notifications import mail
from services.notifications.queue import EMAIL, PATIENCE
from services.notifications.webhooks import conditions, sender, steps
from services.notifications.webhooks import store as webhook_store
from services.orders import bulk, domain, watching
from services.orders.intake import QUEUE as INTAKE
from services.sandbox import domain as sandbox
from shop.customers.v1 import customers_pb2  # noqa: F401 - its contract is looked at
from shop.inventory.v1 import inventory_pb2  # noqa: F401
from shop.orders.v1 import orders_pb2
from shop.payments.v1 import payments_pb2  # noqa: F401
from shop.sandbox.v1 import sandbox_pb2  # noqa: F401
from shop.shipping.v1 import shipping_pb2  # noqa: F401
from shopctl import client
from shopctl.supervisor import logs, restarts
from tests.chaos import test_crash_points
from tests.docs.pages import ROOT

DAY: Final = 24 * 3600.0
MS: Final = 0.001


async def nothing(work: table.Work) -> None:
    """A handler."""


def kept(method: str) -> float:
    """Seconds for which a contract lets an answer be kept."""
    cache = method_policy(method).cache
    assert cache is not None
    return cache.ttl


QUEUE: Final = executor.Queue("test", nothing)
JOBS: Final = jobs.Kind("a job", table.Work, nothing)  # type: ignore[type-var, arg-type]
USUAL: Final = (len(executor.DELAYS) + 1, sum(executor.DELAYS))
LONG: Final = (len(orchestrator.DELAYS) + 1, sum(orchestrator.DELAYS) / 60)
BREAKER: Final = breaker.BreakerPolicy()
RETRY: Final = retry.RetryPolicy(2)
RESUME: Final = resume.ResumeLimits()
ITEMS: Final = dict(validation._limits(orders_pb2.CreateOrderRequest.DESCRIPTOR))[("items",)]
OUTSIDE: Final = method_policy("/shop.sandbox.v1.CardProcessorService/Capture").breaker or BREAKER

POLICY: Final = "protos/accord/v1/policy.proto"
PROMISED: Final[list[tuple[str, str, Sequence[float]]]] = [
    # Background work, sagas, events.
    ("docs/operations.md", "the next step of an order | {} attempts, {} minutes",
     LONG),
    ("docs/faults.md", "CI kills for {} s at points", (test_crash_points.SHARE_SECONDS,)),
    ("docs/operations.md", "If no process serves it for {} s", (unserved.UNSERVED,)),
    ("docs/policies/compensation.md", "served such a queue for {} s", (unserved.UNSERVED,)),
    ("docs/policies/compensation.md", "longer than an attempt of a step may take ({} s)",
     (orchestrator.TIMEOUT,)),
    ("docs/operations.md", "an event that was received | {} attempts, {} s", USUAL),
    ("docs/operations.md", "an order that was submitted | {} attempts, {} s;",
     (len(work_queue.DELAYS) + 1, sum(work_queue.DELAYS))),
    ("docs/queues.md", "a new one is refused | {} | {} |",
     (INTAKE.max_messages, EMAIL.max_messages)),
    ("docs/queues.md", "may wait for | {} h | {} h |", (INTAKE.ttl / 3600, EMAIL.ttl / 3600)),
    ("docs/queues.md", "for a database of a receiver | {} | {} |",
     (INTAKE.prefetch, EMAIL.prefetch)),
    ("docs/queues.md", "attempts, then parked | {} |", (len(INTAKE.delays) + 1,)),
    ("docs/queues.md", "`QUEUE_FULL`, with a delay of {} to {} s",
     (command_sender.RETRY, 2 * command_sender.RETRY)),
    ("docs/queues.md", "go to others after {} s", (work_queue.ACK_WAIT,)),
    ("docs/queues.md", "Every service looks every {} s", (backlog.LOOK,)),
    ("docs/queues.md", "From {} items of work on", (backlog.BOUND,)),
    ("docs/queues.md", "with a delay of {} to {} s as RetryInfo",
     (backlog.LOOK, 2 * backlog.LOOK)),
    ("docs/queues.md", "below {} % of the bound", (backlog.CLEAR * 100,)),
    ("docs/queues.md", "wait on the broker for {} days", (broker.MAX_AGE / DAY,)),
    ("docs/queues.md", "it asks for {} at a time", (inbox.PREFETCH,)),
    ("docs/decisions/024-a-full-queue-refuses-at-its-sender.md", "stays away for longer than {} s",
     (work_queue.ACK_WAIT,)),
    ("docs/operations.md", "a refund the processor has not confirmed | {} attempts, {} minutes",
     LONG),
    ("docs/operations.md", "a charge of a choreographed order | {} attempts, {} minutes", LONG),
    ("docs/operations.md", "a parcel of a choreographed order | {} attempts, {} minutes", LONG),
    ("docs/operations.md", "an event of a [choreographed](sagas.md) order | {} attempts, {} s",
     USUAL),
    ("docs/sagas.md", "| calls of card processor and carrier are tried for | {} minutes", LONG[1:]),
    ("docs/operations.md", "a parcel to be cancelled | {} attempts, {} s", USUAL),
    ("docs/operations.md", "a mail to a customer | {} day", (round(sum(PATIENCE) / DAY, 2),)),
    ("docs/operations.md", "at the {} death, after waits of {}, {}, {} and {} s",
     (len(table.DEATHS) + 1, *table.DEATHS)),
    ("docs/operations.md", "From the {} death on it runs only", (table.SUSPECT,)),
    ("docs/operations.md", "the latest {} failures", (table.HISTORY,)),
    ("docs/decisions/009-park-later-than-fifteen-seconds.md",
     "(at once, {}, {}, {}, {} s) parks after {} s", (*executor.DELAYS[1:], USUAL[1])),
    ("docs/decisions/010-the-outside-party-has-its-own-breaker.md", "names, up to {} s",
     (executor.MAX_TOLD,)),
    ("docs/architecture.md", "{} pieces of work at once per queue and process",
     (QUEUE.concurrency,)),
    ("docs/architecture.md", "{} messages in flight to and from", (inbox.PREFETCH,)),
    ("docs/architecture.md", "{} messages in flight to and from", (publisher.BATCH,)),
    ("docs/architecture.md", "answers kept for {} days", (stores.KEPT / DAY,)),
    ("docs/architecture.md", "events on the broker for {}; log", (broker.MAX_AGE / DAY,)),
    ("docs/jobs.md", "steps** of at most {} s each", (JOBS.timeout,)),
    ("docs/jobs.md", "any message of up to {} MiB", (jobs.MAX_RESULT / 2**20,)),
    ("docs/jobs.md", "tried again after {}, {}, {}, {} and {} s", (*JOBS.delays,)),
    ("docs/jobs.md", "have not ended | {}; more", (JOBS.most,)),
    ("docs/jobs.md", "process works on at once | {} |", (JOBS.concurrency,)),
    ("docs/jobs.md", "deaths of the process during one step | {}, then", (len(table.DEATHS),)),
    ("docs/views.md", "batches of {} events", (views.BATCH,)),
    ("docs/views.md", "{} times a second", (1 / views.PAUSE,)),
    ("docs/views.md", "more than {} metrics", (analytics.MOST_WATCHED,)),
    ("docs/operations.md", "an event for a subscriber | {} attempts, {} hours",
     (len(steps.DELAYS) + 1, round(sum(steps.DELAYS) / 3600))),
    ("docs/webhooks.md", "again after {} s, {} s, {}, {} and {} minutes",
     (*steps.DELAYS[:2], *(delay / 60 for delay in steps.DELAYS[2:5]))),
    ("docs/webhooks.md", "then every {} hours, for {} hours in all",
     (steps.DELAYS[-1] / 3600, round(sum(steps.DELAYS) / 3600))),
    ("docs/webhooks.md", "when {} wait for it, or when the receiver answers {},",
     (steps.MAX_WAITING, steps.GONE)),
    ("docs/webhooks.md", "has {} s to answer", (sender.TIMEOUT,)),
    ("docs/webhooks.md", "{} deliveries of one webhook are sent at a time, to one host {}:",
     (steps.PER_WEBHOOK, sender.PER_HOST)),
    ("docs/webhooks.md", "and {} loops (", (conditions.MAX_LOOPS,)),
    ("docs/webhooks.md", "There may be {} webhooks", (webhook_store.MAX_WEBHOOKS,)),
    # The shop.
    ("docs/architecture.md", "log files {} MB", (logs.MAX_BYTES / 2**20,)),
    ("docs/architecture.md", "{} updates a bulk call", (bulk.MAX_UPDATES,)),
    ("docs/architecture.md", "{} orders a TrackOrders stream", (watching.MAX_TRACKED,)),
    ("docs/architecture.md", "{} events an order", (domain.MAX_EVENTS,)),
    ("docs/architecture.md", "pages of {}", (client.MAX_PAGE,)),
    ("docs/architecture.md", "{} items an order", (ITEMS,)),
    ("docs/decisions/010-the-outside-party-has-its-own-breaker.md",
     "opens when {} % of at least {} calls fail, or {} in a row, for {} s growing to {} s",
     (OUTSIDE.failure_percent, OUTSIDE.min_calls, OUTSIDE.consecutive_failures, OUTSIDE.open,
      OUTSIDE.max_open)),
    # The library.
    ("README.md", "Extension number {} carries them", (policy_pb2.policy.number,)),
    ("docs/decisions/001-policy-in-the-contract.md", "The extension number {} is",
     (policy_pb2.policy.number,)),
    ("docs/abuse.md", "the caller has {} s to take the status", (timeouts.ANSWER_TIME,)),
    ("docs/abuse.md", "may wait for its reader for {} s", (timeouts.SLOW_READER,)),
    ("docs/abuse.md", "have {} places in a process", (state.MAX_STREAMS,)),
    ("docs/abuse.md", "has fewer than {} times those that are free", (stream_share.FACTOR,)),
    ("docs/abuse.md", "the last {}th is for those that have none", (stream_share.RESERVE * 100,)),
    ("docs/abuse.md", "DEFAULT streams get {} tenths of all",
     (stream_share.UPPER[Priority.DEFAULT] * 10,)),
    ("docs/abuse.md", "SHEDDABLE {}. Who", (stream_share.UPPER[Priority.SHEDDABLE],)),
    ("docs/abuse.md", "{} calls before any is lost ({} before", (mesh.MAX_OPEN, 2 * mesh.MAX_OPEN)),
    ("docs/abuse.md", "limits=Limits(streams=...))` | {} |", (state.MAX_STREAMS,)),
    ("docs/abuse.md", "`grpc.max_concurrent_streams` | {} (", (mesh.MAX_OPEN,)),
    ("docs/coming-from.md", "`retry.max_attempts: 3` | at most {}",
     (options_reader._MAX_ATTEMPTS,)),
    ("docs/coming-from.md", "besides it, {} % of at least {} calls in {} s",
     (BREAKER.failure_percent, BREAKER.min_calls, BREAKER.window)),
    ("docs/policies/circuit-breaker.md", "{} % of >= {} calls in {} s failed, or {} in a row",
     (BREAKER.failure_percent, BREAKER.min_calls, BREAKER.window, BREAKER.consecutive_failures)),
    ("docs/policies/circuit-breaker.md", "wait for its turn, {} ms at most",
     (method_state.MAX_WAITS * method_state.WAIT / MS,)),
    ("docs/policies/circuit-breaker.md", "fail within {} a second is left out for {} s",
     (service_config.EJECTION_INTERVAL, service_config.BASE_EJECTION)),
    ("docs/decisions/015-fault-per-backend.md",
     "a look every {} s, {} calls are enough, {} % of failures, {} s, another one while fewer than"
     " {} %",
     (service_config.EJECTION_INTERVAL, service_config.EJECTION_VOLUME, service_config.FAILING,
      service_config.BASE_EJECTION, service_config.MAX_EJECTED)),
    ("docs/policies/concurrency-limit.md", "for {} s calls have waited {} ms or more",
     (limiter.INTERVAL, limiter.TARGET / MS)),
    ("docs/policies/concurrency-limit.md",
     "waited for {} ms (SHEDDABLE), {} ms (DEFAULT), {} s (CRITICAL)",
     (queue.PATIENCE[Priority.SHEDDABLE] / MS, queue.PATIENCE[Priority.DEFAULT] / MS,
      queue.PATIENCE[Priority.CRITICAL])),
    ("docs/policies/concurrency-limit.md", "come back in {} to {} ms",
     (limiter.RETRY_AFTER / MS, 2 * limiter.RETRY_AFTER / MS)),
    ("docs/policies/concurrency-limit.md", "begins calls for {} ms", (rounds.ROUND / MS,)),
    ("docs/policies/concurrency-limit.md", "The floor is the least in {} to {} s",
     (latency_limit.WINDOW, 2 * latency_limit.WINDOW)),
    ("docs/policies/concurrency-limit.md", "far exceeded in {} batches running",
     (latency_limit.SLOW_BATCHES,)),
    ("docs/policies/concurrency-limit.md", "limit = {} x needed + 1", (latency_limit.GAIN,)),
    ("docs/policies/concurrency-limit.md", "the limit is {} x needed", (latency_limit.DRAIN,)),
    ("docs/policies/deadline.md", "Range: {} ms to {} h",
     (options_reader._MIN_TIMEOUT / MS, options_reader._MAX_TIMEOUT / 3600)),
    ("docs/policies/deadline.md", "{} ms kept back for the way home",
     (deadline.MAX_HOP_RESERVE / MS,)),
    ("docs/policies/depth-guard.md", "- 0 to {}. Hops", (options_reader._MAX_DEPTH,)),
    ("docs/policies/errors.md", "- {} violations, and {} bytes of details",
     (errors._MAX_VIOLATIONS, error_details.MAX_DETAILS)),
    ("docs/policies/fault-injection.md", "A delay of at most {} minutes",
     (mesh_service._MAX_DELAY / 60,)),
    ("docs/policies/hedging.md", "in the last {} to {} s",
     (hedge.GENERATION, 2 * hedge.GENERATION)),
    ("docs/policies/hedging.md", "not before {} latencies are known", (hedge.MIN_SAMPLES,)),
    ("docs/policies/idempotency.md", "longer than {}, or not visible",
     (idempotency.MAX_KEY_LENGTH,)),
    ("docs/policies/resume.md", "waits 0..{} ms, 0..{} ms, ... at most {} s each, {} s without",
     (RESUME.first_backoff / MS, 2 * RESUME.first_backoff / MS, RESUME.max_backoff,
      RESUME.patience)),
    ("docs/policies/retry.md", "- 2 to {} attempts", (options_reader._MAX_ATTEMPTS,)),
    ("docs/policies/telemetry.md", "to {} a direction", (instrumentation.MAX_MESSAGES,)),
    # Comments of the contracts, which are pages of the reference.
    ("protos/shop/orders/v1/orders.proto", "(more than {} updates)", (bulk.MAX_UPDATES,)),
    ("protos/shop/orders/v1/orders.proto", "{} at a time); ABORTED", (watching.MAX_TRACKED,)),
    ("protos/shop/orders/v1/orders.proto", "oldest first; the newest {}.", (domain.MAX_NOTES,)),
    ("protos/shop/orders/v1/orders.proto", "The first {} refusals", (bulk.MAX_REFUSALS,)),
    ("protos/shop/orders/v1/orders.proto", "0 means {}.", (page_tokens.DEFAULT_SIZE,)),
    ("protos/shop/orders/v1/orders.proto", "What, 1 to {} items", (ITEMS,)),
    ("protos/shop/orders/v1/orders.proto", "Callers may keep the answer for {} s",
     (kept("/shop.orders.v1.OrderService/GetOrder"),)),
    ("protos/shop/customers/v1/customers.proto", "Callers may keep the answer for {} s",
     (kept("/shop.customers.v1.CustomerService/GetCustomer"),)),
    ("protos/shop/sandbox/v1/sandbox.proto",
     '"tok_slow" answers after {} s, "tok_flaky" fails {} and then',
     (sandbox.SLOW_DELAY, sandbox.FLAKY_FAILURES)),
    ("protos/accord/ops/v1/mesh.proto", "starts, at most {} minutes",
     (mesh_service._MAX_DELAY / 60,)),
    ("protos/accord/ops/v1/mesh.proto", "For how long: 1 ms to {} h",
     (mesh_service.MAX_LASTING / 3600,)),
    ("protos/accord/ops/v1/trace.proto", "The first {}; none", (traces.MAX_TRACES,)),
    ("protos/accord/ops/v1/work.proto", "Its latest failures, oldest first; at most {}.",
     (table.HISTORY,)),
    ("runtime/README.md", "what was recorded, for {} days", (stores.KEPT / DAY,)),
    ("runtime/README.md", "forgets after {} days", (broker.MAX_AGE / DAY,)),
    ("runtime/README.md", "tried again after {}, {}, {}, {} and {} s", (*executor.DELAYS,)),
    ("runtime/README.md", "for {} minutes, and then waits", (sum(orchestrator.DELAYS) / 60,)),
    ("runtime/README.md", "timeout of at most {} s", (orchestrator.TIMEOUT,)),
    (POLICY, "Extension number {} is used for", (policy_pb2.policy.number,)),
    (POLICY, "{} ms to {} h. Default: no bound but",
     (options_reader._MIN_TIMEOUT / MS, options_reader._MAX_TIMEOUT / 3600)),
    (POLICY, "Range: 0 (may only be called from the edge) to {}.", (options_reader._MAX_DEPTH,)),
    (POLICY, "the first included. Range: 2 to {}.", (options_reader._MAX_ATTEMPTS,)),
    (POLICY, "Upper bound of the first wait. Range: > 0. Default: {} ms",
     (RETRY.initial_backoff / MS,)),
    (POLICY, "Range: >= initial_backoff. Default: {} s", (RETRY.max_backoff,)),
    ("docs/policies/telemetry.md", "{} rows of one trace each, for {} days at most",
     (span_store.MAX_ROWS, span_store.MAX_AGE / DAY)),
    ("docs/policies/telemetry.md", "up to {} wait", (span_store.MAX_WAITING,)),
    ("docs/policies/cache.md", "ends {} s before the call does", (consistency.RESERVE,)),
    ("docs/policies/cache.md", "looks {} times a second", (1 / consistency.LOOK,)),
    ("docs/events.md", "has more than {} bytes", (outbox.MAX_BYTES,)),
    ("docs/events.md", "what there was of the last {} days", (broker.MAX_AGE / DAY,)),
    (POLICY, "Range: 50 to 99.9. Default: {}.", (hedge.HedgePolicy().percentile,)),
    (POLICY, "The delay is never shorter than this. Default: {} ms",
     (hedge.HedgePolicy().min_delay / MS,)),
    (POLICY, "Range: 1 to 100. Default: {}.", (BREAKER.failure_percent,)),
    (POLICY, "must hold before the share counts. Default: {}.", (BREAKER.min_calls,)),
    (POLICY, "Length of the sliding window. Default: {} s", (BREAKER.window,)),
    (POLICY, "whatever the share. Default: {}.", (BREAKER.consecutive_failures,)),
    (POLICY, "stays open the first time. Default: {} s", (BREAKER.open,)),
    (POLICY, "of the growing open time. Default: {} s", (BREAKER.max_open,)),
    (POLICY, "however many callers wait. Default: {}.", (BREAKER.probes,)),
    (POLICY, "streaming RPC, each at most {} h", (options_reader._MAX_STREAM / 3600,)),
]  # fmt: skip
"""(page, words with a {} for each number, the numbers in the code, in the unit of the words)."""

WORDS: Final = {
    "half": 0.5, "a": 1, "two": 2, "twice": 2, "second": 2, "three": 3, "fifth": 5, "nine": 9,
    "ten": 10,
}  # fmt: skip


def number(written: str) -> float:
    """What a page writes in digits or in a word."""
    return WORDS[written] if written in WORDS else float(written.replace(",", ""))


@pytest.mark.parametrize(
    ("page", "words", "expected"), PROMISED, ids=[words[:50] for _, words, _ in PROMISED]
)
def test_sentences_say_what_the_code_does(page: str, words: str, expected: list[float]) -> None:
    """A number in a sentence is the constant's, and the sentence is still there."""
    text = (ROOT / page).read_text()
    if page.endswith(".proto"):
        text = re.sub(r"^\s*//", "", text, flags=re.MULTILINE)
    text = " ".join(text.split())
    pattern = re.escape(words).replace(r"\{\}", r"([\d,.]*\d|[a-z]+)")
    found = re.search(pattern, text)
    assert found is not None, f"{page} does not say {words!r} any more"
    assert [number(each) for each in found.groups()] == pytest.approx(list(expected))


CHARGE: Final = "/shop.payments.v1.PaymentService/Charge"
STEPS: Final = (
    CHARGE,
    "/shop.inventory.v1.InventoryService/ReserveStock",
    "/shop.inventory.v1.InventoryService/CommitStock",
    "/shop.shipping.v1.ShippingService/CreateShipment",
)


@pytest.mark.parametrize(
    ("what", "inner", "outer"),
    [
        (
            "a process ends by itself before its supervisor ends it",
            registration.LAME_DUCK + process.GRACE + process.PATIENCE + setup.CLOSING,
            restarts.DRAIN_SECONDS,
        ),
        (
            "a call of a saga ends before the attempt that makes it",
            max(method_policy(step).timeout or 0.0 for step in STEPS),
            orchestrator.TIMEOUT,
        ),
        ("a mail is sent or not before its work is over", mail.TIMEOUT, QUEUE.timeout),
        (
            "a replica is dead and its work taken within 3 s",
            ownership.SILENCE + ownership.BEAT,
            3.1,
        ),
        ("a beat may be lost, and another", 3 * ownership.BEAT, ownership.SILENCE),
        ("what another replica has written is found without a word, too", notifier.POLL, 10.1),
        ("so is work that nobody has told of", executor.POLL, 5.1),
        ("the record is read each second while the broker is away", audit.AWAY, 1.1),
        ("a consumer without a leader is noticed", pull.SILENCE * pull.CLUSTERED, 2.6),
        ("a live change applies within a second", _files.INTERVAL, 1.0),
        ("a live change applies within 5 s of an outage", policy_store.SELDOM, 5.0),
    ],
)
def test_times_that_contain_others(what: str, inner: float, outer: float) -> None:
    """What must be over before something else is."""
    assert inner < outer, what
