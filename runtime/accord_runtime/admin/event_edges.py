"""What a process consumes and publishes, for whoever watches it: from memory alone."""

import time
from collections.abc import Iterator

from accord.ops.v1 import mesh_pb2 as pb
from accord_runtime.admin.health import Health
from accord_runtime.events.publisher import Publisher
from accord_runtime.grpc.types import duration
from accord_runtime.service import Runtime
from accord_runtime.work.backlog import Waiting


def event_edges(runtime: Runtime, health: Health, publisher: Publisher) -> Iterator[pb.EventEdge]:
    """Its edges as they are now; what waits is as of the last look, at most a few seconds ago."""
    now, executor = time.time(), runtime.executor
    for inbox in runtime.inboxes:
        work = runtime.backlog.queues.get(inbox.queue, Waiting())
        yield pb.EventEdge(
            direction=pb.DIRECTION_IN,
            source=inbox.source,
            waiting=inbox.coming + work.waiting + work.in_flight,
            oldest_age=duration(work.age(now)) if work.since else None,
            done=inbox.at_once + executor.done[inbox.queue],
            failed=executor.failed[inbox.queue],
            parked=work.parked,
        )
    lag = health.lag
    if publisher.position or lag.events:  # else it has never published anything
        yield pb.EventEdge(
            direction=pb.DIRECTION_OUT,
            source=runtime.settings.name,
            waiting=lag.events,
            oldest_age=duration(lag.oldest) if lag.events else None,
            done=publisher.published,
            failed=publisher.failed,
        )
