"""What mails say, without a database or a mail server."""

import pytest

from services.notifications import domain
from services.notifications.domain import format_amount
from services.notifications.mail import MailServer, compose
from shop.common.v1.money_pb2 import Money
from shop.notifications.v1.notifications_pb2 import Notification
from shop.orders.v1 import events_pb2, orders_pb2

ORDER = "01920000-0000-7000-8000-000000000001"
CUSTOMER = "01920000-0000-7000-8000-000000000002"
DECLINED = orders_pb2.Failure(
    reason=orders_pb2.FAILURE_REASON_CARD_DECLINED, detail="insufficient\r\nfunds"
)


@pytest.mark.parametrize(
    ("minor_units", "currency", "expected"),
    [
        (1999, "EUR", "19.99 EUR"),
        (1900, "USD", "19.00 USD"),
        (5, "EUR", "0.05 EUR"),
        (0, "EUR", "0.00 EUR"),
        (1999, "JPY", "1999 JPY"),
        (1999, "KRW", "1999 KRW"),
        (1999, "BHD", "1.999 BHD"),
        (7, "KWD", "0.007 KWD"),
        (10**17, "EUR", "1000000000000000.00 EUR"),
    ],
)
def test_amounts(minor_units: int, currency: str, expected: str) -> None:
    """Each currency has as many digits as ISO 4217 gives it, and no amount is rounded."""
    assert format_amount(minor_units, currency) == expected


def test_confirmed() -> None:
    """Good news says what was paid and how to follow the parcel."""
    event = events_pb2.OrderConfirmed(
        order_id=ORDER,
        customer_id=CUSTOMER,
        total=Money(minor_units=1999, currency_code="EUR"),
        tracking_number="TRACK1",
    )

    news = domain.confirmed(event)

    assert news.outcome == "CONFIRMED"
    assert news.subject == f"Your order {ORDER} is on its way"
    assert news.body("Ada Lovelace") == (
        "Hello Ada Lovelace,\n\n"
        f"Thank you! Your order {ORDER} is on its way.\n\n"
        "Paid: 19.99 EUR\n"
        "Tracking number: TRACK1\n\n"
        "Your shop\n"
    )


def test_an_order_shipped_by_hand_has_no_tracking_number() -> None:
    """A fact that is not known is left out, not shown as an empty line."""
    event = events_pb2.OrderConfirmed(
        order_id=ORDER, total=Money(minor_units=1999, currency_code="EUR")
    )
    assert domain.confirmed(event).text.endswith("\n\nPaid: 19.99 EUR")


def test_bad_news_says_why() -> None:
    """Each kind of bad news has its own outcome, the reason in words, and one line per fact."""
    rejected = domain.rejected(events_pb2.OrderRejected(order_id=ORDER, failure=DECLINED))
    failed = domain.failed(events_pb2.OrderFailed(order_id=ORDER, failure=DECLINED))
    cancelled = domain.cancelled(events_pb2.OrderCancelled(order_id=ORDER, failure=DECLINED))

    assert [news.outcome for news in (rejected, failed, cancelled)] == [
        "REJECTED",
        "FAILED",
        "CANCELLED",
    ]
    for news in (rejected, failed, cancelled):
        assert ORDER in news.subject
        assert "Reason: the card was declined (insufficient funds)\n" in news.text


@pytest.mark.parametrize("reason", orders_pb2.FailureReason.values())
def test_every_reason_has_words(reason: orders_pb2.FailureReason.ValueType) -> None:
    """Also a reason of a later version is told without a code or a number."""
    failure = orders_pb2.Failure(reason=reason)
    news = domain.failed(events_pb2.OrderFailed(order_id=ORDER, failure=failure))

    assert "FAILURE_REASON" not in news.text
    assert "()" not in news.text


def _notification(
    recipient: str = "ada@example.com", subject: str = "Your order", body: str = "Hello Ada,\n"
) -> Notification:
    notification = Notification(
        notification_id=ORDER, order_id=ORDER, recipient=recipient, subject=subject, body=body
    )
    notification.created_at.FromSeconds(1_700_000_000)
    return notification


def test_mail_is_the_same_each_time() -> None:
    """A repeat is the same bytes under the same Message-ID, so that it can be recognised."""
    first, second = compose(_notification()), compose(_notification())

    assert first["Message-ID"] == f"<{ORDER}@shop.internal>"
    assert first["Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
    assert first.as_bytes() == second.as_bytes()


@pytest.mark.parametrize("field", ["recipient", "subject"])
@pytest.mark.parametrize("ending", ["\r\n", "\n", "\r"])
def test_nothing_adds_headers(field: str, ending: str) -> None:
    """Text with a line break cannot become a header of its own."""
    hostile = f"ada@example.com{ending}Bcc: eve@example.com"

    with pytest.raises(ValueError, match=r"CR|linefeed|carriage"):
        compose(_notification(**{field: hostile}))


def test_name_stays_on_its_line() -> None:
    """A name cannot add lines to a mail."""
    news = domain.confirmed(events_pb2.OrderConfirmed(order_id=ORDER))

    assert news.body("Ada\r\n\r\nPay here:\x00 evil").startswith("Hello Ada Pay here: evil,\n\n")


def test_text_in_any_language() -> None:
    """Letters beyond ASCII arrive as they were written."""
    mail = compose(_notification(body="Hello Ægir 世界,\n"))

    assert mail.get_content().strip() == "Hello Ægir 世界,"
    assert mail.as_bytes().isascii()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:25", MailServer("127.0.0.1", 25)),
        ("[::1]:587", MailServer("::1", 587)),
        ("mail.example.com:25", MailServer("mail.example.com", 25)),
    ],
)
def test_mail_server_address(address: str, expected: MailServer) -> None:
    """A mail server is named as host and port; IPv6 in brackets."""
    assert MailServer.of(address) == expected
