"""`accord contracts diff`: what it compares, what it reports, how it exits; nothing is missed."""

import errno
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor as pb
from google.protobuf import descriptor_pb2, text_format

from accord.contract import LimitPolicy
from accord.policies.breaker import BreakerPolicy
from accord.v1 import policy_pb2
from accord_checks import cli
from accord_checks.breaking_rules.change import Risk
from accord_checks.breaking_rules.compare import compare
from accord_checks.contracts import Contracts
from tests.contracts import written_contracts
from tests.contracts.conftest import Git
from tests.contracts.test_checks import CUSTOMERS, edit
from tests.contracts.test_plugin import FOREIGN, STATED
from tools.contracts import ROOT, SCRIPTS

SHORTER = STATED.replace("{seconds: 2}", "{seconds: 1}")
LONGER = STATED.replace("{seconds: 2}", "{seconds: 3}")


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A module with one service and its policy."""
    return written_contracts.write(tmp_path / "before", {"stated.proto": STATED})


def diff(before: object, after: Path, *options: str) -> int:
    """Run the command."""
    return cli.main(["contracts", "diff", str(before), "--input", str(after), *options])


@pytest.mark.parametrize(
    ("text", "code", "heading"),
    [
        (STATED, 0, "No policy, event or error reason has changed."),
        (STATED.replace("team-greetings", "team-hello"), 0, "### Safe"),
        (LONGER, 10, "### Risky"),
        (SHORTER, 20, "### Breaking"),
        (FOREIGN, 20, "### Breaking"),
    ],
)
def test_the_exit_code_says_how_bad_it_is(
    text: str,
    code: int,
    heading: str,
    before: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """0 for nothing or safe, 10 for risky, 20 for breaking; the report has a part for each."""
    after = written_contracts.write(tmp_path / "after", {"stated.proto": text})
    assert diff(before, after) == code
    assert heading in capsys.readouterr().out


def test_the_report_is_markdown_with_file_line_rule_and_advice(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reviewer sees where, what, why it matters and what to do, one change a line."""
    diff(before, written_contracts.write(tmp_path / "after", {"stated.proto": SHORTER}))
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("## Contracts since ")
    assert out[2] == "**1 breaking**."
    assert out[-1] == (
        "- `stated.proto:9` the timeout of Greet went from 2 s to 1 s: calls that took that long "
        "fail with DEADLINE_EXCEEDED; keep it, or agree with its callers first, or accept it: "
        "`// buf:lint:ignore POLICY_TIMEOUT_SHORTENED timeout 2 s to 1 s: <why>` "
        "(POLICY_TIMEOUT_SHORTENED)"
    )


def test_a_change_of_defaults_is_one_line(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What changes for all RPCs of a service, in one place, is said once, with their names."""
    rpcs = STATED.partition("  rpc Greet(")[2].partition("\n}\n")[0]
    more = "".join(f"\n  rpc Greet{n}({rpcs}" for n in range(4))
    text = STATED.replace(rpcs, rpcs + more)
    then = written_contracts.write(tmp_path / "then", {"stated.proto": text})
    now = written_contracts.write(
        tmp_path / "now", {"stated.proto": text.replace("{seconds: 2}", "{seconds: 1}")}
    )
    assert diff(then, now, "--json") == 20
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert change["element"] == "foreign.v1.GreetService"
    assert change["what"].startswith("the timeout of Greet, Greet0, Greet1 and 2 more went from")


def test_a_default_that_is_taken_away_is_one_line(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said at the service whose default it was; what each RPC stated itself, at each."""
    rpcs = STATED.partition("  rpc Greet(")[2].partition("\n}\n")[0]
    text = STATED.replace(rpcs, rpcs + f"\n  rpc Hail({rpcs}")
    default, own = "      retry: {max_attempts: 2}\n", 'policy) = {errors: ["GONE"]};'
    with_default = text.replace("      timeout", default + "      timeout")
    level = "NO_SIDE_EFFECTS;"
    with_own = text.replace(level, f"{level}\n    option (accord.v1.{own}")
    now = written_contracts.write(tmp_path / "now", {"stated.proto": text})
    for text, places in ((with_default, [6]), (with_own, [13, 16])):
        assert (
            diff(written_contracts.write(tmp_path / "then", {"stated.proto": text}), now, "--json")
            == 20
        )
        changes = json.loads(capsys.readouterr().out)["changes"]
        assert [change["line"] for change in changes] == places


HALF = """syntax = "proto3";
package half.v1;
import "accord/v1/policy.proto";
service HalfService {%s
  rpc Greet(Thing) returns (Thing) {
    option (accord.v1.policy) = {allow: ["*"]};
  }
  rpc Hail(Thing) returns (Thing) {
    option (accord.v1.policy) = {errors: ["GONE"]};
  }
}
message Thing {}
"""


ANYBODY, WEB = "any verified identity", "spiffe://acme.org/web"


@pytest.mark.parametrize(
    ("option", "listed", "shut_out"),
    [
        ('{owner: "a"}', "", ""),
        (f'{{defaults: {{allow: ["{WEB}"]}}}}', WEB, ANYBODY),
        ('{defaults: {allow: ["*"]}}', ANYBODY, ""),
    ],
)
def test_a_list_of_callers_that_comes_or_goes(
    option: str, listed: str, shut_out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a list everybody may call, or nobody where identities are wanted: both are said."""
    then = written_contracts.write(tmp_path / "then", {"half.proto": HALF % ""})
    now = written_contracts.write(
        tmp_path / "now", {"half.proto": HALF % f"\n  option (accord.v1.service) = {option};"}
    )
    assert diff(then, now) == (20 if shut_out else 10 if listed else 0)
    came = capsys.readouterr().out
    assert diff(now, then) == (20 if listed else 0)
    went = capsys.readouterr().out
    assert (f"{shut_out} may no longer call Hail" in came) == bool(shut_out)
    assert (f"{shut_out} may call Hail now" in went) == bool(shut_out)
    assert (f"{listed} may call Hail now" in came) == bool(listed)
    assert (f"{listed} may no longer call Hail" in went) == bool(listed)


def test_the_first_release_implied_what_is_stated_now() -> None:
    """Its contracts are read with the defaults that its library had, today's without."""
    image = ROOT / "contracts" / "released" / "0.1.0.binpb"
    files = descriptor_pb2.FileDescriptorSet.FromString(image.read_bytes())
    assert Contracts(files.file).rpcs["accord.ops.v1.WorkService/ListWork"].policy.breaker is None
    rpcs = Contracts(files.file, implied=True).rpcs
    get, stream = (
        rpcs[f"shop.orders.v1.OrderService/{name}"] for name in ("GetOrder", "StreamOrderUpdates")
    )
    assert (get.policy.breaker, get.policy.limit) == (BreakerPolicy(), LimitPolicy())
    assert get.policy.max_depth == 2
    assert stream.policy.stream.idle == 90
    assert rpcs["accord.ops.v1.WorkService/ListWork"].policy.timeout == 5


def test_bounds_of_a_stream_are_nothing_to_a_unary_rpc(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A default for streams that gets shorter or longer concerns only what the server writes."""
    bounded = STATED.replace("      timeout", "      stream: {idle: {seconds: 60}}\n      timeout")
    then = written_contracts.write(tmp_path / "then", {"stated.proto": bounded})
    for other in ("{seconds: 30}", "{seconds: 600}"):
        text = bounded.replace("{seconds: 60}", other)
        assert diff(then, written_contracts.write(tmp_path / "now", {"stated.proto": text})) == 0
        assert "No policy" in capsys.readouterr().out


def test_another_kind_of_streaming_is_breaking_and_the_only_thing_said(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its policies mean something else: a timeout that seems to be gone is no change of its own."""
    text = STATED.replace("returns (Greet", "returns (stream Greet")
    assert (
        diff(before, written_contracts.write(tmp_path / "after", {"stated.proto": text}), "--json")
        == 20
    )
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert change["what"] == "Greet was unary and is a server stream now"


def test_a_promise_about_repeats_is_shown_as_it_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A level that goes while the key stays is shown by its name."""
    key = "option (accord.v1.policy) = {idempotency: {key: KEY_NATURAL}};"
    level = "option idempotency_level = "
    both = STATED.replace(f"{level}NO_SIDE_EFFECTS;", f"{level}IDEMPOTENT; {key}")
    then = written_contracts.write(tmp_path / "then", {"stated.proto": both})
    now = written_contracts.write(
        tmp_path / "now",
        {"stated.proto": both.replace(f"{level}IDEMPOTENT;", "")},
        "version: v2\nbreaking: {except: [RPC_SAME_IDEMPOTENCY_LEVEL]}\n",
    )
    assert diff(then, now) == 0
    said = "went from IDEMPOTENT with KEY_NATURAL to IDEMPOTENCY_UNKNOWN with KEY_NATURAL"
    assert said in capsys.readouterr().out


def test_a_map_of_an_event_is_named_by_its_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message that protobuf makes for its entries is nobody's name."""
    event = """
message Greeted {
  option (accord.v1.event) = {subject: "greeted" version: 1 key: "id"};
  string id = 1;
  map<string, int32> counts = 2;
}
"""
    then = written_contracts.write(tmp_path / "then", {"stated.proto": STATED + event})
    for other in ("map<string, int64>", "map<int32, int32>", "repeated GreetRequest"):
        text = STATED + event.replace("map<string, int32>", other)
        assert (
            diff(then, written_contracts.write(tmp_path / "now", {"stated.proto": text}), "--json")
            == 20
        )
        (change,) = json.loads(capsys.readouterr().out)["changes"]
        what = "Greeted.counts, which Greeted carries, has another type now"
        assert change["what"] == what


def test_an_event_that_is_gone_is_shown_where_it_was(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file is there, its line is not: a reviewer is led to the version before."""
    event = """message Greeted {
  option (accord.v1.event) = {subject: "greeted" version: 1 key: "id"};
  string id = 1;
}
"""
    then = written_contracts.write(tmp_path / "then", {"stated.proto": STATED + event})
    assert diff(then, before, "--json") == 20
    (change,) = json.loads(capsys.readouterr().out)["changes"]
    assert change["line"] == STATED.count("\n") + 1


def test_json_is_for_programs(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--json` says the same, field by field; what was taken away is found where it was."""
    gone = STATED.replace("rpc Greet(", "rpc Hail(")
    assert (
        diff(before, written_contracts.write(tmp_path / "after", {"stated.proto": gone}), "--json")
        == 20
    )
    removed, added = json.loads(capsys.readouterr().out)["changes"]
    assert removed["risk"] == "breaking"
    assert removed["element"] == "foreign.v1.GreetService/Greet"
    assert (removed["file"], removed["line"]) == ("stated.proto", 13)
    assert (added["risk"], added["accepted"]) == ("safe", False)


def test_an_accepted_change_is_shown_but_does_not_count(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A comment that accepts a change takes it out of the exit code, not out of the report."""
    line = "// buf:lint:ignore POLICY_TIMEOUT_SHORTENED timeout 2 s to 1 s: agreed"
    comment = f"{line}\nservice GreetService"
    text = SHORTER.replace("service GreetService", comment)
    assert diff(before, written_contracts.write(tmp_path / "after", {"stated.proto": text})) == 0
    assert "POLICY_TIMEOUT_SHORTENED) **Accepted by a comment.**" in capsys.readouterr().out


def test_an_image_and_a_git_revision_can_be_compared_with(
    repository: Path, git: Git, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """REF may be the released image or any revision; the folder with buf.yaml is what is now."""
    monkeypatch.chdir(repository)
    for ref in ("contracts/released/0.1.0.binpb", "HEAD", "main~1"):
        assert cli.main(["contracts", "diff", ref]) == 0
        assert "No policy" in capsys.readouterr().out
    edit(repository / CUSTOMERS, "timeout: {seconds: 2}", "timeout: {seconds: 1}")
    for ref in ("contracts/released/0.1.0.binpb", "HEAD"):
        assert cli.main(["contracts", "diff", ref]) == 20
        assert "customers.proto:18` the timeout of CreateCustomer" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"", b"\x00\x01nonsense", b"\x0a\xff\xff\xff\x7f"])
def test_what_cannot_be_read_is_one_line(
    content: bytes | None, before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A reference that does not exist, an empty and a truncated image: one line, exit code 1."""
    ref = tmp_path / "ref"
    if content is not None:
        ref.write_bytes(content)
    assert diff(ref, before) == 1
    error = capsys.readouterr().err
    assert error.startswith("accord: ")
    assert error.count("\n") == 1
    assert "ref" in error


def test_a_truncated_image_is_one_line(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image that was cut off anywhere is refused, or has files that do not fit together."""
    image = (repository / "contracts/released/0.1.0.binpb").read_bytes()
    ref = tmp_path / "ref.binpb"
    for size in range(1, len(image), len(image) // 12):
        ref.write_bytes(image[:size])
        assert diff(ref, repository) == 1
        error = capsys.readouterr().err
        assert error.startswith("accord: ")
        assert error.count("\n") == 1


def test_an_option_of_accord_s_number_is_one_line(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that has Accord's number for something else is named, with the reason."""
    text = """syntax = "proto3";
import "google/protobuf/descriptor.proto";
extend google.protobuf.ServiceOptions { string mine = 51010; }
service OtherService { option (mine) = "not a message of Accord's"; }
"""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "odd.proto").write_text(text)
    assert diff(before, folder) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"accord: {folder} has an option of its own with the number 51010")
    assert error.count("\n") == 1


def test_a_reader_that_has_seen_enough() -> None:
    """Whoever pipes the output into `head` sees no trace."""
    command = (SCRIPTS / "accord", "contracts", "explain")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""


def test_contracts_that_do_not_compile_are_buf_s_own_error(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The compiler's message is passed on."""
    after = written_contracts.write(tmp_path / "after", {"stated.proto": "syntax = "})
    assert diff(before, after) == 1
    assert "stated.proto:1:" in capsys.readouterr().err


def leaves(message: pb.Descriptor, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """All fields of the vocabulary that hold a value, as paths from the policy."""
    for field in message.fields:
        inner = field.message_type
        if inner is not None and inner.full_name != "google.protobuf.Duration":
            yield from leaves(inner, (*path, field.name))
        else:
            yield (*path, field.name)


# Two valid policies that differ in every field of the vocabulary, for an RPC of each shape.
UNARY = (
    """timeout {seconds: 9} attempt_timeout {seconds: 8}
    retry {max_attempts: 4 initial_backoff {seconds: 1} max_backoff {seconds: 2} codes: 14}
    hedge {percentile: 90 min_delay {seconds: 1}}
    breaker {failure_percent: 10 min_calls: 11 window {seconds: 12} consecutive_failures: 13
             open {seconds: 14} max_open {seconds: 15} probes: 16}
    limit {priority: PRIORITY_CRITICAL rate {per_second: 5 burst: 6} max_concurrent: 7}
    allow: "a" calls {method: "t.v1.S/Other" timeout {seconds: 1}}
    compensation {method: "t.v1.S/Other" fill {field: "id" from: "request.id"}}
    idempotency {key: KEY_REQUIRED} errors: "A" max_depth: 1
    floor {timeout {seconds: 1} max_attempts: 2}
    saga {timeout {seconds: 9} steps: ["t.v1.S/Other", "t.v1.S/More"] pivot: "t.v1.S/Other"}""",
    """timeout {seconds: 19} attempt_timeout {seconds: 7}
    retry {max_attempts: 5 initial_backoff {nanos: 1000000} max_backoff {seconds: 3} codes: 10}
    hedge {percentile: 91 min_delay {seconds: 2}}
    breaker {failure_percent: 20 min_calls: 21 window {seconds: 22} consecutive_failures: 23
             open {seconds: 13} max_open {seconds: 25} probes: 26}
    limit {priority: PRIORITY_SHEDDABLE rate {per_second: 15 burst: 16} max_concurrent: 8}
    allow: "b" calls {method: "t.v1.S/More" timeout {seconds: 2}}
    compensation {method: "t.v1.S/More" fill {field: "name" from: "response.id"}}
    idempotency {key: KEY_NATURAL} errors: "B" max_depth: 2
    floor {timeout {seconds: 2} max_attempts: 3}
    saga {timeout {seconds: 8} steps: ["t.v1.S/More", "t.v1.S/Other"] pivot: "t.v1.S/More"}""",
)
STREAM = (
    """stream {max_lifetime {seconds: 1} idle {seconds: 2} keepalive {seconds: 3}}
    resume {request_field: "n" response_field: "n"}""",
    """stream {max_lifetime {seconds: 2} idle {seconds: 3} keepalive {seconds: 4}}
    resume {request_field: "m" response_field: "m"}""",
)
CACHE = (
    'cache {ttl {seconds: 1} invalidated_by: "t.v1.S/Other"}',
    'cache {ttl {seconds: 2} invalidated_by: "t.v1.S/More"}',
)
REASON = ('stream {not_resumable: "a"}', 'stream {not_resumable: "b"}')
FILE = """name: "t.proto" package: "t.v1" syntax: "proto3" dependency: "accord/v1/policy.proto"
message_type {name: "M"
  field {name: "id" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL}
  field {name: "name" number: 2 type: TYPE_STRING label: LABEL_OPTIONAL}
  field {name: "n" number: 3 type: TYPE_INT64 label: LABEL_OPTIONAL}
  field {name: "m" number: 4 type: TYPE_INT64 label: LABEL_OPTIONAL}}
service {name: "S"
  method {name: "Other" input_type: ".t.v1.M" output_type: ".t.v1.M"}
  method {name: "More" input_type: ".t.v1.M" output_type: ".t.v1.M"}}"""


def one(policy: policy_pb2.MethodPolicy, *, streaming: bool) -> Contracts:
    """Contracts with one policy."""
    proto = text_format.Parse(FILE, descriptor_pb2.FileDescriptorProto())
    method = proto.service[0].method.add(
        name="Rpc", input_type=".t.v1.M", output_type=".t.v1.M", server_streaming=streaming
    )
    method.options.Extensions[policy_pb2.policy].CopyFrom(policy)
    if policy.HasField("cache"):
        method.options.idempotency_level = descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS
    return Contracts([proto, *written_contracts.vocabulary()])


def put(target: Any, source: Any, path: tuple[str, ...]) -> None:
    """Copy one field, at the end of a path, from one policy to another."""
    for name in path[:-1]:
        inner, from_ = getattr(target, name), getattr(source, name)
        target, source = (inner[0], from_[0]) if hasattr(inner, "append") else (inner, from_)
    value = getattr(source, path[-1])
    if hasattr(value, "append"):
        del getattr(target, path[-1])[:]
        getattr(target, path[-1]).extend(value)
    elif hasattr(value, "CopyFrom"):
        getattr(target, path[-1]).CopyFrom(value)
    else:
        setattr(target, path[-1], value)


@pytest.mark.parametrize("path", list(leaves(policy_pb2.MethodPolicy.DESCRIPTOR)), ids=".".join)
def test_no_field_of_the_vocabulary_changes_unseen(path: tuple[str, ...]) -> None:
    """A change of any field of a policy is reported, whatever its class, in both directions."""
    pair = UNARY
    if path[0] in ("stream", "resume"):
        pair = REASON if path[-1] == "not_resumable" else STREAM
    if path[0] == "cache":
        pair = CACHE
    left, right = (text_format.Parse(text, policy_pb2.MethodPolicy()) for text in pair)
    streaming = pair not in (UNARY, CACHE)
    changed = policy_pb2.MethodPolicy()
    changed.CopyFrom(left)
    put(changed, right, path)
    before, after = one(left, streaming=streaming), one(changed, streaming=streaming)
    assert before.rpcs["t.v1.S/Rpc"].reading.problems == ()
    assert after.rpcs["t.v1.S/Rpc"].reading.problems == ()
    for changes in (list(compare(before, after)), list(compare(after, before))):
        assert changes
        assert all(change.risk is Risk.SAFE or change.rule for change in changes)
    assert list(compare(before, before)) == []


KINDS = tuple(policy_pb2.Idempotency.Key.values())


@pytest.mark.parametrize("level", descriptor_pb2.MethodOptions.IdempotencyLevel.keys())
@pytest.mark.parametrize("by_default", [False, True], ids=["method", "default"])
def test_every_edit_of_the_kind_of_key(by_default: bool, level: str) -> None:
    """A key that is given up, whatever takes its place, and one that is demanded are breaking."""

    def version(key: Any, level: Any) -> Contracts:
        proto = text_format.Parse(FILE, descriptor_pb2.FileDescriptorProto())
        service, method = proto.service[0], proto.service[0].method[0]
        stated = service.options.Extensions[policy_pb2.service]
        stated.owner = "team"
        own = method.options.Extensions[policy_pb2.policy]
        (stated.defaults if by_default else own).idempotency.key = key
        method.options.idempotency_level = level
        return Contracts([proto, *written_contracts.vocabulary()])

    none, required, natural = KINDS
    expected = {
        (none, required): "POLICY_KEY_REQUIRED",
        (natural, required): "POLICY_KEY_REQUIRED",
        (required, none): "POLICY_IDEMPOTENCY_WEAKENED",
        (required, natural): "POLICY_IDEMPOTENCY_WEAKENED",
        (natural, none): "POLICY_IDEMPOTENCY_WEAKENED",
        (none, natural): None,
    }
    for (was, is_), rule in expected.items():
        changes = compare(version(was, "IDEMPOTENCY_UNKNOWN"), version(is_, level))
        of_get = [change for change in changes if change.element.endswith("/Other") or by_default]
        found = {change.rule.id for change in of_get if change.rule is not None}
        assert found == ({rule} if rule else set()), (was, is_)


def test_the_command_is_installed(before: Path, tmp_path: Path) -> None:
    """`accord contracts diff` is a console script; its exit code reaches the shell."""
    after = written_contracts.write(tmp_path / "after", {"stated.proto": LONGER})
    command = (SCRIPTS / "accord", "contracts", "diff", before, "--input", after)
    assert subprocess.run(command, capture_output=True, check=False).returncode == 10


def test_the_headline_says_how_much_is_accepted(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever reads "1 breaking" and sees a green check learns why."""
    line = "// buf:lint:ignore POLICY_TIMEOUT_SHORTENED timeout 2 s to 1 s: agreed"
    comment = f"{line}\nservice GreetService"
    text = SHORTER.replace("service GreetService", comment).replace("team-greetings", "team-hello")
    assert diff(before, written_contracts.write(tmp_path / "after", {"stated.proto": text})) == 0
    assert capsys.readouterr().out.splitlines()[2] == "**1 breaking** (1 accepted), **1 safe**."


def test_an_empty_name_is_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty variable of a script does not compare this folder with itself."""
    assert cli.main(["contracts", "diff", ""]) == 1
    assert capsys.readouterr().err.startswith("accord: an empty name is neither a folder")


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one contract in its module, and that is where we are."""
    root = tmp_path / "small"
    (root / "protos" / "greet").mkdir(parents=True)
    (root / "buf.yaml").write_text("version: v2\nmodules:\n  - path: protos\n")
    (root / "protos/common.proto").write_text('syntax = "proto3";\nmessage Common {}\n')
    (root / "protos/greet/greet.proto").write_text(
        'syntax = "proto3";\npackage greet;\nimport "common.proto";\n'
        "message Name { Common common = 1; }\n"
    )
    monkeypatch.chdir(root)
    _git("init", "--quiet", "--initial-branch=main")
    _commit("contracts")
    return root


def _git(*arguments: str) -> None:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
    subprocess.run(("git", *who, *arguments), check=True)


def _commit(message: str) -> None:
    _git("add", ".")
    _git("commit", "--quiet", f"--message={message}")


def test_a_name_of_two_things_is_refused(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A branch that is called like a folder: it is said how to name either."""
    _git("branch", "protos")
    assert cli.main(["contracts", "diff", "protos"]) == 1
    assert capsys.readouterr().err == (
        "accord: 'protos' is both a path and a git revision: write ./protos, or "
        "refs/heads/protos for the branch\n"
    )
    for name in ("./protos", "refs/heads/protos"):
        assert cli.main(["contracts", "diff", name]) == 0


def test_a_link_out_of_the_repository_is_one_line(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A revision whose contracts are partly somewhere else cannot be read, and it is said why."""
    (tmp_path / "shared.proto").write_text('syntax = "proto3";\n')
    (small / "protos/shared.proto").symlink_to(tmp_path / "shared.proto")
    _commit("link")
    assert cli.main(["contracts", "diff", "HEAD"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("accord: HEAD cannot be read: 'protos/shared.proto' is a link to")
    assert error.count("\n") == 1


def test_a_revision_that_does_not_compile_is_called_by_its_name(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not by that of a temporary folder; below buf.yaml, where imports are not found, it helps."""
    monkeypatch.chdir(small / "protos" / "greet")
    assert cli.main(["contracts", "diff", "HEAD"]) == 1
    assert capsys.readouterr().err.splitlines()[0] == (
        "accord: HEAD does not compile (where there is a buf.yaml, run it beside that): "
        "greet.proto:3:1:imported file does not exist"
    )
    monkeypatch.chdir(small)
    (small / "protos/common.proto").write_text("syntax = ")
    _commit("broken")
    assert cli.main(["contracts", "diff", "HEAD"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("accord: HEAD does not compile: protos/common.proto:1:")


def test_an_image_with_an_option_of_accord_s_number_is_one_line(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An image gives the same reason as the folder that it was built of."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "odd.proto").write_text(
        'syntax = "proto3";\nimport "google/protobuf/descriptor.proto";\n'
        "extend google.protobuf.MessageOptions { string mine = 51010; }\n"
        'message Other { option (mine) = "not a message of Accord\\\'s"; }\n'
    )
    ref = tmp_path / "odd.binpb"
    written_contracts.buf(tmp_path / "other", "build", "-o", str(ref)).check_returncode()
    assert diff(ref, before) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"accord: {ref} has an option of its own with the number 51010")
    assert error.count("\n") == 1


def shell(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `accord contracts`, with redirections as a shell makes them."""
    script = f'exec "$0" contracts {command}'
    return subprocess.run(
        ("bash", "-c", script, SCRIPTS / "accord", *map(str, arguments)),
        capture_output=True,
        text=True,
        check=False,
    )


FULL = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device")


@FULL
@pytest.mark.parametrize("command", ['diff "$1" --input "$1"', "explain", 'export envoy "$1"'])
def test_output_that_does_not_fit_is_one_line(command: str, before: Path) -> None:
    """A full disk is a line and exit code 1, also for the interpreter that ends."""
    done = shell(f"{command} > /dev/full", before)
    assert (done.returncode, done.stderr) == (1, "accord: No space left on device\n")


def test_closed_output(before: Path, tmp_path: Path) -> None:
    """The exit code of `diff` is answer enough; what `export` makes must go somewhere."""
    assert shell('diff "$1" --input "$1" >&-', before).returncode == 0
    assert shell("explain >&-").stderr == ""
    assert shell('export envoy "$1" -o "$2" >&-', before, tmp_path / "routes").returncode == 0
    done = shell('export envoy "$1" >&-', before)
    assert done.returncode == 1
    assert done.stderr == "accord: standard output is closed: name a file with -o\n"


def test_ctrl_c_is_no_trace(before: Path, tmp_path: Path) -> None:
    """Whoever interrupts a command sees nothing more; the exit code is the shell's for SIGINT."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = (SCRIPTS / "accord", "contracts", "diff", pipe, "--input", before)
    with subprocess.Popen(command, stderr=subprocess.PIPE) as running:
        assert running.stderr is not None
        try:
            writer = _opened(pipe)  # it has begun to read
            running.send_signal(signal.SIGINT)
            os.close(writer)
            assert running.wait(60) == 130
        finally:
            running.kill()
        assert running.stderr.read() == b""


def _opened(pipe: Path) -> int:
    """The writing end of a pipe, as soon as somebody reads it."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def test_what_buf_itself_finds_is_in_the_report(
    before: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A field that is gone is a break of its shape: the report says it, and its exit code."""
    text = STATED.replace("  string text = 1;\n", "")
    after = written_contracts.write(tmp_path / "after", {"stated.proto": text})
    assert diff(before, after) == 20
    assert capsys.readouterr().out.splitlines()[2:] == [
        "**1 by buf breaking**.",
        "",
        "### Breaking: shapes, by buf",
        "",
        f"- `stated.proto:{STATED[: STATED.index('message GreetResponse')].count(chr(10)) + 1}` "
        'Previously present field "1" with name "text" on message "GreetResponse" was deleted. '
        "(FIELD_NO_DELETE)",
    ]
    assert diff(before, after, "--json") == 20
    (shape,) = json.loads(capsys.readouterr().out)["shapes"]
    assert shape["rule"] == "FIELD_NO_DELETE"


@pytest.mark.parametrize("nanos", ["2000000000", "1000000000", "-1"])
def test_an_invalid_policy_makes_no_untrue_line(nanos: str) -> None:
    """What is invalid counts as not written; that it was taken away is not said."""
    right = text_format.Parse("timeout {seconds: 5}", policy_pb2.MethodPolicy())
    wrong = text_format.Parse(f"timeout {{seconds: 1 nanos: {nanos}}}", policy_pb2.MethodPolicy())
    then, now = one(right, streaming=False), one(wrong, streaming=False)
    for before, after, said in ((then, now, 1), (now, then, 0)):
        changes = list(compare(before, after))
        assert [change.rule for change in changes] == [None] * said
        assert all("timeout of Rpc is invalid: must have 0 to" in c.what for c in changes)


def test_a_map_is_shown_as_a_list_of_pairs() -> None:
    """Calls that are taken away are named, not printed as Python's own."""
    call = 'calls {method: "t.v1.S/Other" timeout {seconds: 1}}'
    then = one(text_format.Parse(call, policy_pb2.MethodPolicy()), streaming=False)
    now = one(text_format.Parse('errors: "A"', policy_pb2.MethodPolicy()), streaming=False)
    said = [change.what for change in compare(then, now)]
    assert "calls of Rpc went from {t.v1.S/Other 1 s} to {}" in said
