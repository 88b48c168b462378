"""A file of routes: what it says, and what is wrong with one."""

import json
from typing import Any

import pytest

from accord.xds import Ejection, Route, RouteError, Rule, parse

GOOD: dict[str, Any] = {
    "versions": {"v1": "127.0.0.1:1", "v2": "dns:///x:2"},
    "weights": {"v1": 95, "v2": 5},
    "rules": [{"identities": ["spiffe://d/a"], "headers": {"x": "y"}, "weights": {"v2": 1}}],
    "fallback": ["v1"],
    "draining": ["127.0.0.1:1"],
    "ejection": {"percent": 30, "interval": 1},
    "health": "",
}


def test_everything_is_read() -> None:
    """A document becomes frozen values; what it leaves out has its default."""
    route = parse(json.dumps({"orders": GOOD}))["orders"]
    rule = Rule({"v2": 1}, frozenset({"spiffe://d/a"}), {"x": "y"})
    assert route == Route(
        GOOD["versions"], {"v1": 95, "v2": 5}, (rule,), ("v1",), frozenset({"127.0.0.1:1"}),
        Ejection(30, interval=1), health="",
    )  # fmt: skip
    assert Route({"only": "127.0.0.1:1"}).weights == {"only": 1}


def test_the_first_rule_that_matches_wins() -> None:
    """A caller meets the rules of its identity and of none; one without headers ends the list."""
    rules = (
        Rule({"v1": 1}, identities=frozenset({"a"})),
        Rule({"v2": 1}, headers={"x": "y"}),
        Rule({"v2": 1}, identities=frozenset({"b"}), headers={"z": "y"}),
    )
    route = Route({"v1": "-", "v2": "-"}, {"v1": 1}, rules)
    assert [dict(split.weights) for split in route.split_for("a")] == [{"v1": 1}]
    assert [dict(split.headers) for split in route.split_for("b")] == [{"x": "y"}, {"z": "y"}, {}]
    assert [dict(split.headers) for split in route.split_for("c")] == [{"x": "y"}, {}]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"weight": {}}, r"orders\.weight: is no field; did you mean 'weights'"),
        ({"weights": {"v3": 1}}, "'v3' is none of the versions"),
        ({"weights": {"v1": -1}}, "whole numbers"),
        ({"weights": {"v1": 0.5}}, "whole numbers"),
        ({"weights": {"v1": True}}, "whole numbers"),
        ({"weights": {"v1": 0}}, "all are 0"),
        ({"weights": {}}, "weights: there are none"),
        ({"weights": []}, r"orders\.weights: is no object"),
        ({"versions": {}}, "versions: there is none"),
        ({"versions": {"v/1": "x:1"}}, "'v/1' is no name"),
        ({"versions": {"v1": 1}}, r"orders\.versions\.v1: is no string"),
        ({"rules": [{"headers": {"x-bin": "y"}, "weights": {"v1": 1}}]}, "no key of metadata"),
        ({"rules": [{"headers": {"X": "y"}, "weights": {"v1": 1}}]}, "no key of metadata"),
        ({"rules": [{}]}, r"orders\.rules\[0\]: .*weights"),
        ({"rules": ["x"]}, r"orders\.rules\[0\]: is no object"),
        ({"fallback": ["v9"]}, "'v9' is none of the versions"),
        ({"ejection": {"percent": 0}}, "percent 1 to 100"),
        ({"draining": [1]}, r"orders\.draining: is no string"),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, Any], said: str) -> None:
    """A mistake is refused with its place."""
    with pytest.raises(RouteError, match=said):
        parse(json.dumps({"orders": {**GOOD, **changed}}))


@pytest.mark.parametrize(
    "text", ["", "[]", '"x"', "{", '{"a/b": {}}', '{"orders": 1}', "[" * 100_000, " " * 2_000_000]
)
def test_no_document(text: str) -> None:
    """What is not even an object of targets is refused like anything else."""
    with pytest.raises(RouteError):
        parse(text)
