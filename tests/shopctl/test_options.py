"""Times and ages on the command line."""

from datetime import timedelta

import pytest
import typer

from shopctl import options
from shopctl.supervisor.programs import SERVICES


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("90s", timedelta(seconds=90)),
        ("5m", timedelta(minutes=5)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
    ],
)
def test_ages(text: str, age: timedelta) -> None:
    """Seconds, minutes, hours and days."""
    assert options.parse_age(text) == age


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "1.5h", "1w", "9999d", "999999999d", "٣m"])
def test_ages_that_make_no_sense(text: str) -> None:
    """Anything else is a usage error."""
    with pytest.raises(typer.BadParameter, match="is not an age"):
        options.parse_age(text)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("200ms", timedelta(milliseconds=200)),
        ("2s", timedelta(seconds=2)),
        ("5m", timedelta(minutes=5)),
        ("1h", timedelta(hours=1)),
    ],
)
def test_times(text: str, time: timedelta) -> None:
    """Milliseconds, seconds, minutes and hours."""
    assert options.parse_duration(text) == time


@pytest.mark.parametrize("text", ["", "5", "ms", "-5m", "1.5h", "1d", "9999999s", "٣m"])
def test_times_that_make_no_sense(text: str) -> None:
    """Anything else is a usage error."""
    with pytest.raises(typer.BadParameter, match="is not a time"):
        options.parse_duration(text)


def test_processes_beside_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """`--service` takes what `MESH_TARGETS` names beside the services, which a mailer is."""
    monkeypatch.setenv("MESH_TARGETS", "mailer=127.0.0.1:9070,orders=127.0.0.1:1")
    assert options.services() == (*SERVICES, "mailer")
    monkeypatch.setenv("MESH_TARGETS", "no address")
    assert options.services() == SERVICES
    with pytest.raises(typer.BadParameter, match="'mailer' is not one of"):
        options._check_service("mailer")
