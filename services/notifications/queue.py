"""The e-mail queue: mails that several processes share, for where one cannot send them all."""

from typing import Final

from accord_runtime.events.work_queue import WorkQueue
from shop.notifications.v1.commands_pb2 import SendMail

URGENT: Final = "urgent"
"""That an order came to nothing: its customer may want to do something about it."""

PATIENCE: Final = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, *[60.0] * 60, *[600.0] * 138)
"""Seconds before each retry: each minute for the first hour, then every ten minutes for a day."""

SENDING: Final = 4
"""Mails sent at a time, of each level."""

EMAIL: Final = WorkQueue(
    "email",
    SendMail,
    "notification_id",
    max_messages=50_000,
    ttl=48 * 3600.0,
    prefetch=100,
    delays=PATIENCE,
    levels=(URGENT, "normal"),
    concurrency=SENDING,
)
