"""Which lists are paged, and which fields are bounded, under whatever names."""

from pathlib import Path

import pytest

from accord_checks.contracts import Contracts
from accord_checks.lint_rules import message_size
from tests.contracts import written_contracts

FILE = """syntax = "proto3";
package %s;
import "accord/v1/policy.proto";
import "buf/validate/validate.proto";
service ThingService {
  option (accord.v1.service) = {owner: "a" defaults: {timeout: {seconds: 1} allow: ["*"]}};
  rpc %s(ThingRequest) returns (ThingResponse) {
    option idempotency_level = NO_SIDE_EFFECTS;
  }
}
message ThingRequest {
  %s
}
message ThingResponse {
  %s
}
message Page {
  int32 limit = 1;
  bytes cursor = 2;
}
message Job {
  int64 last_modified = 1;
  string next_step = 2;
}
message Operation {
  repeated string issues = 1;
}
enum Color {
  COLOR_UNSPECIFIED = 0;
}
"""
THINGS = "repeated string things = 1;"
NEXT = THINGS + " string next_page_token = 2;"
# Method, request, response, and what is missing.
LISTS = [
    ("ListThings", "int32 page_size = 1; string page_token = 2;", NEXT, ""),
    ("ListThings", "int64 maximum_page_size = 1; bytes next_page_token = 2;", NEXT, ""),
    ("ListThings", "int32 limit = 1; string token = 2;", THINGS + " bytes token = 2;", ""),
    ("ListThings", "uint32 maxResults = 1; string cursor = 2;", THINGS + " bool more = 2;", ""),
    ("ListThings", "int32 limit = 1; int32 offset = 2;", THINGS, ""),
    ("ListThings", "int32 page_size = 1; int32 page = 2;", THINGS, ""),
    ("ListThings", "Page page = 1;", THINGS + " bytes next_cursor = 2;", ""),
    ("ListThings", "bytes continuation_token = 1;", NEXT, ""),
    ("SearchThings", "uint64 limit = 1;", THINGS, ""),
    ("ListThings", "string id = 1;", "Operation operation = 1;", ""),
    ("ListThings", "string id = 1;", "repeated Color colors = 1;", ""),
    (
        "ListThings",
        "string id = 1;",
        "repeated string things = 1 [(buf.validate.field).repeated.max_items = 9];",
        "",
    ),
    ("ListThings", "string id = 1;", THINGS, "a page size, a page token, the next token"),
    (
        "ListThings",
        "string id = 1;",
        "repeated Job jobs = 1;",
        "a page size, a page token, the next token",
    ),
    ("List", "string id = 1;", NEXT, "a page size, a page token"),
    ("ListThings", "int32 limit = 1;", THINGS, "a page token, the next token"),
    ("ListThings", "int32 limit = 1; string token = 2;", THINGS, "the next token"),
    ("ListThings", "int32 page_size = 1; string page_token = 2;", THINGS, "the next token"),
    ("ListThings", "int32 offset = 1;", THINGS, "a page size"),
    ("SearchThings", "string id = 1;", THINGS, "a page size, a page token, the next token"),
    ("ListThings", "string id = 1;", "map<string, string> things = 1;", "a page size, a page tok"),
]
COLORS = "repeated Color colors = 1"
UNIQUE = "(buf.validate.field).repeated = {unique: true items: {%s}}"
# A field, its rules, and whether it is bounded.
FIELDS = [
    (COLORS, "", False),
    (COLORS, UNIQUE % "", False),
    (COLORS, UNIQUE % "enum: {defined_only: true}", True),
    (COLORS, UNIQUE % "enum: {defined_only: false}", False),
    (COLORS, UNIQUE.replace("true", "false") % "enum: {defined_only: true}", False),
    (COLORS, "(buf.validate.field).repeated.items.enum.defined_only = true", False),
    ("repeated string names = 1", UNIQUE % "string: {in: ['a', 'b']}", True),
    ("repeated string names = 1", UNIQUE % "string: {max_len: 9}", False),
    ("map<bool, int32> counts = 1", "", True),
    ("map<int32, bool> counts = 1", "", False),
]


def contracts(root: Path, bodies: list[tuple[str, str, str]]) -> Contracts:
    files = {
        f"case{index}.proto": FILE % (f"case.v{index}", *body) for index, body in enumerate(bodies)
    }
    return written_contracts.contracts(written_contracts.write(root, files))


@pytest.fixture(scope="module")
def paged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What is said of each file."""
    found = contracts(tmp_path_factory.mktemp("paged"), [case[:3] for case in LISTS])
    return {one.place.file: one.what for one in message_size.paged.check(found)}


@pytest.mark.parametrize("index", range(len(LISTS)))
def test_a_list_is_paged_under_any_names(index: int, paged: dict[str, str]) -> None:
    """A size and a token count whatever they are called; what is missing is named."""
    said, missing = paged.get(f"case{index}.proto"), LISTS[index][3]
    assert (said is not None) == bool(missing), said
    assert f"without {missing}" in (said or "without ")


def test_a_list_of_few_values_is_bounded(tmp_path: Path) -> None:
    """A list of different values of which there are only so many needs no count."""
    bodies = [
        ("GetThing", f"{field}{f' [{rules}]' if rules else ''};", "string id = 1;")
        for field, rules, _ in FIELDS
    ]
    found = message_size.limited.check(contracts(tmp_path, bodies))
    unbounded = {finding.place.file for finding in found}
    for index, (field, rules, bounded) in enumerate(FIELDS):
        assert (f"case{index}.proto" not in unbounded) is bounded, (field, rules)
