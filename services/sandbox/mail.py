"""A mail server that keeps what it accepts as files, one per message."""

import asyncio
import hashlib
import os
from email.parser import BytesHeaderParser
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

MAX_BYTES = 1 << 20
"""Largest message accepted; a larger one is refused with 552."""
IDLE_TIMEOUT = 60.0
"""Seconds of silence after which a connection is closed."""


def file_name(content: bytes) -> str:
    """Name of a message's file: a hash of its Message-ID, or of all of it when it has none."""
    message_id = BytesHeaderParser().parsebytes(content).get("Message-ID", "")
    identity = str(message_id).strip().encode() or content
    return f"{hashlib.sha256(identity).hexdigest()}.eml"


def keep(folder: Path, content: bytes) -> None:
    """Write a message durably; a redelivered one replaces itself.

    Whoever lists the folder sees whole messages only: they get their name when they are complete.

    Raises:
        OSError: it was not kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / file_name(content)
    # Redeliveries of one message may overlap; each needs a file of its own until it is renamed.
    part = folder / f".{target.stem}.{os.urandom(8).hex()}.part"
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class _Mailbox:
    """What aiosmtpd calls once a message is complete."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content
        assert isinstance(content, bytes)
        try:
            await asyncio.to_thread(keep, self._folder, content)
        except OSError:
            return "451 4.3.0 not kept, try again later"
        return "250 2.0.0 kept"


async def serve_mail(folder: Path, host: str, port: int) -> None:
    """Accept mail by SMTP until cancelled; the folder is made when the first one comes.

    Raises:
        OSError: the port is taken.
    """
    mailbox = _Mailbox(folder)

    def connection() -> SMTP:
        return SMTP(
            mailbox,
            data_size_limit=MAX_BYTES,
            enable_SMTPUTF8=True,
            hostname="sandbox.invalid",
            ident="sandbox",
            timeout=IDLE_TIMEOUT,
            loop=asyncio.get_running_loop(),
        )

    server = await asyncio.get_running_loop().create_server(connection, host, port)
    try:
        await asyncio.Event().wait()
    finally:
        # Not waited for: idle connections may stay open for long.
        server.close()
