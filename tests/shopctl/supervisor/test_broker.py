"""The broker's secret."""

from pathlib import Path

from shopctl.supervisor import broker


def test_token_is_made_once(tmp_path: Path) -> None:
    """The token is random, stays, and an empty file left by a crash is replaced."""
    first = broker.token(tmp_path)
    assert broker.token(tmp_path) == first
    (tmp_path / broker.TOKEN_FILE).write_text("")
    assert broker.token(tmp_path) not in ("", first)
