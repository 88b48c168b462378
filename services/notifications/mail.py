"""Mail by SMTP."""

import asyncio
import contextlib
import smtplib
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.headerregistry import Address, HeaderRegistry
from email.message import EmailMessage
from email.utils import format_datetime
from functools import cache
from typing import Final

from accord_runtime.work.executor import Permanent
from shop.notifications.v1.notifications_pb2 import Notification

DOMAIN: Final = "shop.internal"
SENDER: Final = Address("Your shop", "orders", DOMAIN)

TIMEOUT: Final = 10.0
"""Seconds that the mail server may take for one answer."""


class _Headers(HeaderRegistry):
    """The classes of headers, made once: the standard library makes them for each header."""

    __getitem__ = cache(HeaderRegistry.__getitem__)


# Encoded in seven bits, for not every mail server takes eight.
POLICY: Final = policy.SMTP.clone(cte_type="7bit", header_factory=_Headers())


class RefusedError(Exception):
    """The mail server will never take this mail."""


def compose(notification: Notification) -> EmailMessage:
    """The mail of a notification.

    It is the same each time, Message-ID included: a mail server that took it before recognises it.
    Header values that contain line breaks are refused by `EmailMessage`.
    """
    message = EmailMessage(policy=POLICY)
    message["Message-ID"] = f"<{notification.notification_id}@{DOMAIN}>"
    message["Date"] = format_datetime(datetime.fromtimestamp(notification.created_at.seconds, UTC))
    message["From"] = SENDER
    user, _, domain = notification.recipient.rpartition("@")
    message["To"] = Address(username=user, domain=domain)
    message["Subject"] = notification.subject
    # Keeps answering machines from answering (RFC 3834).
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(notification.body)
    return message


async def send(server: "MailServer", notification: Notification) -> None:
    """Hand a notification's mail in.

    Raises:
        Permanent: no repeat can help.
        Exception: the server cannot take it now, or was not reached.
    """
    try:
        await asyncio.to_thread(server.send, notification)
    except RefusedError as error:
        raise Permanent(str(error)) from error


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed in."""

    host: str
    port: int

    @classmethod
    def of(cls, address: str) -> "MailServer":
        """The mail server at `host:port`; an IPv6 host stands in brackets."""
        host, _, port = address.rpartition(":")
        return cls(host.strip("[]"), int(port))

    def send(self, notification: Notification) -> None:
        """Hand a notification's mail in. Blocks: not for the event loop.

        Raises:
            RefusedError: no repeat can help: a reply of 5xx to the recipient or to the mail.
            smtplib.SMTPException: the server cannot take it now.
            OSError: the server cannot be reached, or is silent for `TIMEOUT`.
        """
        message = compose(notification)
        # A given name of ours keeps smtplib from asking the DNS for it.
        server = smtplib.SMTP(self.host, self.port, DOMAIN, TIMEOUT)
        try:
            server.send_message(message, SENDER.addr_spec, [notification.recipient])
        except smtplib.SMTPRecipientsRefused as error:
            if all(code >= 500 for code, _ in error.recipients.values()):
                raise RefusedError(f"the recipient was refused: {error.recipients}") from error
            raise
        except smtplib.SMTPDataError as error:
            if error.smtp_code >= 500:
                raise RefusedError(f"the mail was refused: {error}") from error
            raise
        finally:
            # The mail is handed in or it is not; a bad good-bye changes nothing.
            with contextlib.suppress(smtplib.SMTPException, OSError):
                server.quit()
            server.close()
