"""A process that shares the e-mail queue: `python -m services.notifications.mailer`.

It has a database of its own, for what it has taken, and nothing else: notifications are told what
was sent. Several need a `MESH_LISTEN` and a `DATABASE_URL` each; notifications must run with
`MAIL_QUEUE=shared`.
"""

import time
from dataclasses import replace
from typing import Final

from accord_runtime.database import Tx
from accord_runtime.grpc.types import timestamp
from accord_runtime.process import main
from accord_runtime.service import Runtime, Service
from accord_runtime.settings import Addresses
from accord_runtime.work.executor import Queue
from accord_runtime.work.table import Effect, Work
from services import topology
from services.notifications.mail import MailServer, send
from services.notifications.queue import EMAIL, PATIENCE
from shop.notifications.v1.commands_pb2 import SendMail
from shop.notifications.v1.notifications_pb2 import Notification, RecordSentRequest
from shop.notifications.v1.notifications_pb2_grpc import NotificationServiceStub

NAME: Final = "mailer"

PORT: Final = 9070
"""Where the first one listens, for its operator and its health."""

TELL: Final = "tell"
"""Queue of what notifications are to be told."""


class Mailer:
    """Sends mails, and says so."""

    def __init__(self, runtime: Runtime) -> None:
        self._executor = runtime.executor
        self._server = MailServer.of(runtime.settings.mail_server)
        self._notifications = NotificationServiceStub(runtime.mesh.channel("notifications"))
        self._executor.register(Queue(TELL, self._tell, delays=PATIENCE))
        runtime.receive(EMAIL, self._send)

    async def _send(self, command: SendMail) -> Effect:
        """Send a mail. If the process dies before this is written, again, as the same mail."""
        await send(
            self._server,
            Notification(
                notification_id=command.notification_id,
                recipient=command.recipient,
                subject=command.subject,
                body=command.body,
                created_at=command.created_at,
            ),
        )
        sent = RecordSentRequest(
            notification_id=command.notification_id, sent_at=timestamp(time.time())
        )

        def write(tx: Tx) -> None:
            key, payload = command.notification_id, sent.SerializeToString()
            self._executor.enqueue(tx, TELL, key, payload)

        return write

    async def _tell(self, work: Work) -> None:
        await self._notifications.RecordSent(RecordSentRequest.FromString(work.payload))


def build(runtime: Runtime) -> None:
    """Receive commands."""
    Mailer(runtime)


def addresses(offset: int) -> Addresses:
    """Where everything listens, and the first mailer."""
    mesh = topology.addresses(offset)
    own = f"{topology.HOST}:{PORT + offset}"
    return replace(mesh, services={**mesh.services, NAME: own})


SERVICE: Final = Service(name=NAME, contracts=(), build=build)

if __name__ == "__main__":
    main(SERVICE, addresses)
