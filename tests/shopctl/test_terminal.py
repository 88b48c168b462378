"""What a terminal is given to print."""

import json

import pytest

from shop.common.v1.money_pb2 import Money
from shopctl.client import Shop
from shopctl.options import DEFAULT_HOME
from shopctl.supervisor.logs import Human, json_lines
from shopctl.terminal import harmless

CONTROLS = [
    *map(chr, (*range(0x20), *range(0x7F, 0xA0))),
    *map(chr, (*range(0x2028, 0x202F), *range(0x2066, 0x206A))),
]


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: f"{ord(control):04x}")
def test_nothing_is_obeyed(control: str) -> None:
    """Whatever moves the cursor, colours or turns text around is shown as what it is."""
    shown = harmless(f"a{control}b")
    assert shown.isprintable()
    assert json.loads(f'"{shown}"').replace(" ", control) == f"a{control}b"


def test_what_people_write_stays() -> None:
    """Letters of every script, and what joins them, are not touched."""
    for text in ("Grüße", "你好", "שלום", "می\u200cکند", "👩\u200d💻", "a  b"):
        assert harmless(text) == text


def test_no_way_around_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither what a service says nor what a process logs gets to the terminal as it is."""
    evil = "\u202egpj.exe\x9b2J"
    Shop(DEFAULT_HOME, None, as_json=False).print(Money(), evil, "next")
    assert capsys.readouterr().out == "\\u202egpj.exe\\u009b2J\nnext\n"
    line = json.dumps({"msg": evil, "order": evil, "exception": evil}, ensure_ascii=False).encode()
    human = Human(width=6, colour=False)
    for said in (human("orders", line), human("orders", evil.encode()), json_lines("orders", line)):
        assert said is not None
        assert "\\u202egpj" in said
        assert not {"\u202e", "\x9b"} & set(said)
    assert json.loads(json_lines("orders", line))["msg"] == evil
