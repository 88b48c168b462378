"""What is said to do next."""

from pathlib import Path

import pytest

from shopctl.supervisor import hints


def test_hints_use_the_right_ports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The commands name the ports of this shop, and its folder unless it is the usual one."""
    monkeypatch.chdir(tmp_path)
    assert "MESH_HOME" not in hints.text(tmp_path / ".mesh", 0)
    text = hints.text(tmp_path / "other place", 100)
    assert f"export MESH_HOME='{tmp_path}/other place'" in text
    assert "127.0.0.1:9151" in text
    assert "127.0.0.1:9051" not in text
    assert "-m services" not in text
    assert "-m services.orders" in hints.text(tmp_path, 0, ["orders", "broker"])
