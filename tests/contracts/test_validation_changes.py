"""Rules of requests (protovalidate), before and after: what grows stricter, looser, or goes."""

from pathlib import Path

import pytest

from accord_checks.breaking_rules.compare import compare
from accord_checks.contracts import Contracts
from tests.contracts import written_contracts

FILE = """syntax = "proto3";
package rules.v1;
import "buf/validate/validate.proto";
import "google/protobuf/duration.proto";
service RuleService {{
  rpc Set(SetRequest) returns (SetResponse);
}}
message SetRequest {{
  Held held = 1;
}}
message SetResponse {{
  Kept kept = 1;
}}
message Held {{
  {} = 1{};
}}
message Kept {{
  {} = 1{};
}}
"""
T, L, R = ("POLICY_VALIDATION_TIGHTENED", "POLICY_VALIDATION_LOOSENED", "POLICY_VALIDATION_REMOVED")
TEXT, NUMBER, MANY = "string it", "int32 it", "repeated string it"
WAIT, MAP = "google.protobuf.Duration it", "map<string, string> it"
# A field, its rules before and after, and what is said of the change and of its reverse.
CASES: list[tuple[str, str, str, set[str], set[str]]] = [
    (TEXT, "string.max_len = 9", "string.max_len = 8", {T}, {L}),
    (TEXT, "string.min_len = 1", "string.min_len = 2", {T}, {L}),
    (TEXT, "string.min_len = 0", "", set(), set()),
    (TEXT, "", "string.pattern = '^a$'", {T}, {R}),
    (TEXT, "string.pattern = '^a$'", "string.pattern = '^b$'", {T}, {T}),
    (TEXT, "string = {max_len: 9}", "string = {max_len: 9 email: true}", {T}, {R}),
    (TEXT, "string = {in: ['a', 'b']}", "string = {in: ['a']}", {T}, {L}),
    (TEXT, "string = {in: ['a', 'b']}", "string = {in: ['b', 'a']}", set(), set()),
    (TEXT, "", "required = true", {T}, {L}),
    (TEXT, "string.max_len = 9", " = {required: true string: {max_len: 9}}", {T}, {L}),
    (
        TEXT,
        "string.uuid = true",
        " = {ignore: IGNORE_IF_ZERO_VALUE string: {uuid: true}}",
        {L},
        {T},
    ),
    (TEXT, "string.uuid = true", " = {ignore: IGNORE_ALWAYS string: {uuid: true}}", {R}, {T}),
    (
        TEXT,
        "cel = {id: 'a' expression: 'true'}",
        "cel = {id: 'a' message: 'm' expression: 'true'}",
        set(),
        set(),
    ),
    (
        TEXT,
        "cel = {id: 'a' expression: 'true'}",
        "cel = {id: 'a' expression: 'false'}",
        {T},
        {T},
    ),
    (TEXT, "string.max_len = 90", "string.max_len = 9", {T}, {L}),
    (TEXT, "string.max_len = 91", "string.max_len = 9", {T}, {R}),
    (NUMBER, "int32.gte = 0", "int32.gte = -11", {R}, {T}),
    (NUMBER, "int32.lte = 9", "int32.lt = 10", set(), set()),
    (NUMBER, "int32.lte = 9", "int32.lt = 9", {T}, {L}),
    (NUMBER, "int32.gt = 0", "int32.gte = 1", set(), set()),
    (NUMBER, "int32.gte = 0", "", {R}, {T}),
    (MANY, "repeated.max_items = 9", "repeated.max_items = 5", {T}, {L}),
    (
        MANY,
        "repeated.items.string.max_len = 9",
        "repeated.items.string.max_len = 8",
        {T},
        {L},
    ),
    (
        MANY,
        "repeated = {max_items: 9 unique: true}",
        "repeated = {max_items: 9 unique: false}",
        {R},
        {T},
    ),
    (MAP, "map.max_pairs = 9", "map.max_pairs = 8", {T}, {L}),
    (MAP, "map.keys.string.max_len = 9", "map.keys.string.max_len = 8", {T}, {L}),
    (WAIT, "duration.lte = {seconds: 5}", "duration.lt = {seconds: 5}", {T}, {L}),
    (WAIT, "duration.lte = {seconds: 5}", "duration.lte = {seconds: 4 nanos: 9}", {T}, {L}),
    ("Kept it", "", "required = true", {T}, {L}),
]


def options(rules: str) -> str:
    """The rules of a field."""
    if not rules:
        return ""
    return f" [(buf.validate.field){rules if rules.startswith(' ') else '.' + rules}]"


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Contracts, Contracts]:
    """All cases, each in a file of its own, before and after."""
    found = []
    for side in (0, 1):
        files = {}
        for index, (field, before, after, _, _) in enumerate(CASES):
            plain = "string it" if field.startswith("Kept") else field
            text = FILE.format(field, options((before, after)[side]), plain, "")
            files[f"case{index}.proto"] = text.replace("rules.v1", f"rules.v{index + 1}")
        root = tmp_path_factory.mktemp("cases")
        found.append(written_contracts.contracts(written_contracts.write(root, files)))
    return found[0], found[1]


@pytest.mark.parametrize("index", range(len(CASES)))
def test_a_rule_that_changes(index: int, versions: tuple[Contracts, Contracts]) -> None:
    """A stricter rule is breaking, a weaker one risky, one that is gone breaking; both ways."""
    *_, there, back = CASES[index]
    for then, now, expected in ((*versions, there), (*versions[::-1], back)):
        changes = [
            change
            for change in compare(then, now)
            if change.element.startswith(f"rules.v{index + 1}.")
        ]
        assert {change.rule.id for change in changes if change.rule is not None} == expected
        assert len(changes) == len(expected), [change.message for change in changes]


def test_answers_are_not_judged(tmp_path: Path) -> None:
    """A rule of a message that no RPC receives refuses nobody's request."""
    text = FILE.format("string it", "", "string it", "%s")
    then, now = (
        written_contracts.contracts(
            written_contracts.write(tmp_path / name, {"a.proto": text % options(rules)})
        )
        for name, rules in (("then", "string.max_len = 9"), ("now", "string.max_len = 8"))
    )
    assert list(compare(then, now)) == []


def test_a_line_at_the_field_or_its_message_accepts_a_rule(tmp_path: Path) -> None:
    """As for policies: the rule and both values, and a reason."""
    line = f"// buf:lint:ignore {T} Held.it string.max_len 9 to 8: nobody sends more\n"
    text = FILE.format("%s  string it", options("string.max_len = %s"), "string it", "")
    then = written_contracts.write(tmp_path / "then", {"a.proto": text % ("", 9)})
    for begin, accepted in (("  string it", True), ("message Held", True), ("message Kept", False)):
        edited = (text % ("", 8)).replace(begin, f"{line}{begin}", 1)
        now = written_contracts.write(tmp_path / "now", {"a.proto": edited})
        (change,) = compare(written_contracts.contracts(then), written_contracts.contracts(now))
        assert change.accepted is accepted
