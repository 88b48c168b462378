"""The mail server."""

import asyncio
import smtplib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path

import pytest

from services.sandbox.mail import MAX_BYTES, file_name, keep, serve_mail
from tests.support.ports import free_port

HOST = "127.0.0.1"


@asynccontextmanager
async def mail_server(folder: Path) -> AsyncIterator[int]:
    """A mail server on a free port."""
    port = free_port()
    task = asyncio.create_task(serve_mail(folder, HOST, port))
    try:
        async with asyncio.timeout(5):
            while True:
                with suppress(ConnectionRefusedError):
                    _, writer = await asyncio.open_connection(HOST, port)
                    writer.close()
                    break
                await asyncio.sleep(0.01)
        yield port
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def a_mail(message_id: str = "<1@shop>", body: str = "Your order is confirmed.") -> EmailMessage:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@example.com", "ada@example.com", "Order"
    mail["Message-ID"] = message_id
    mail.set_content(body)
    return mail


def send(port: int, *mails: EmailMessage) -> None:
    with smtplib.SMTP(HOST, port, timeout=5) as client:
        for mail in mails:
            client.send_message(mail)


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.exists() else []


async def test_a_mail_becomes_a_file(tmp_path: Path) -> None:
    """What is sent can be read back from the folder, whole."""
    async with mail_server(tmp_path / "mails") as port:
        await asyncio.to_thread(send, port, a_mail(body="Grüße"))
    (file,) = files(tmp_path / "mails")
    kept = BytesParser(policy=default).parsebytes(file.read_bytes())

    assert file.suffix == ".eml"
    assert (kept["To"], kept["Message-ID"]) == ("ada@example.com", "<1@shop>")
    assert kept.get_content().strip() == "Grüße"


async def test_a_redelivered_mail_replaces_itself(tmp_path: Path) -> None:
    """The same Message-ID is one mail, however often it is sent; another one is another mail."""
    async with mail_server(tmp_path) as port:
        await asyncio.gather(*(asyncio.to_thread(send, port, a_mail()) for _ in range(5)))
        await asyncio.to_thread(send, port, a_mail(), a_mail("<2@shop>"))

    assert len(files(tmp_path)) == 2


async def test_a_mail_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """More than the limit is a permanent error, and nothing is kept."""
    async with mail_server(tmp_path) as port:
        with pytest.raises(smtplib.SMTPResponseException) as refused:
            await asyncio.to_thread(send, port, a_mail(body="x" * 70 + "\n" * MAX_BYTES))

    assert refused.value.smtp_code == 552
    assert files(tmp_path) == []


async def test_a_mail_that_cannot_be_kept_is_to_be_sent_again(tmp_path: Path) -> None:
    """An error of the disk is a temporary error to the sender: it keeps the mail."""
    folder = tmp_path / "mails"
    folder.write_text("in the way")
    async with mail_server(folder) as port:
        with pytest.raises(smtplib.SMTPResponseException) as refused:
            await asyncio.to_thread(send, port, a_mail())

    assert refused.value.smtp_code == 451


async def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    """The mail server fails loudly when it cannot listen."""
    async with mail_server(tmp_path) as port:
        with pytest.raises(OSError, match="in use"):
            await serve_mail(tmp_path, HOST, port)


def test_a_mail_without_an_id_is_known_by_its_content(tmp_path: Path) -> None:
    """Mails without Message-ID are told apart by what they say."""
    one, other = b"Subject: a\r\n\r\none", b"Subject: a\r\n\r\nother"
    for content in (one, other, one):
        keep(tmp_path, content)

    assert [file.name for file in files(tmp_path)] == sorted({file_name(one), file_name(other)})


def test_a_hostile_id_stays_in_the_folder(tmp_path: Path) -> None:
    """File names are hashes: nothing in a mail chooses a path."""
    keep(tmp_path / "mails", b"Message-ID: <../../../etc/passwd>\r\n\r\n")

    assert [file.parent for file in tmp_path.rglob("*.eml")] == [tmp_path / "mails"]
