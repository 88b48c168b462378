"""The outcome of a replay, for people."""

from shopctl.replay.reconcile import Check, Difference, Unit, Verdict
from shopctl.replay.report import MAX_DIFFERENCES, amount, table
from tests.shopctl.replay.test_progress import shown


def test_amounts() -> None:
    """Cents are printed as dollars with two digits, exactly, whatever their size."""
    assert amount(123456789012345678, Unit.CENTS) == "1,234,567,890,123,456.78"
    assert amount(5, Unit.CENTS) == "0.05"
    assert amount(-105, Unit.CENTS) == "-1.05"
    assert amount(1234, Unit.UNITS) == "1,234"


def test_table_names_what_differs() -> None:
    """The table shows both sides of each sum and the rows that differ, up to a bound."""
    rows = [Difference(f"order {n}", "payments", "captured", "1", "2") for n in range(60)]
    verdict = Verdict([Check("payments", "captured", Unit.CENTS, 100, 199)], rows)
    text = shown(table(verdict))
    assert "payments  captured    1.00         1.99  USD   DIFFERS" in text
    assert text.count("order ") == MAX_DIFFERENCES
    assert "and 10 more" in text
