"""The plugin under `buf`: foreign contracts, odd ones, comments that leave findings out."""

import subprocess
from pathlib import Path

import pytest

from accord_checks import plugin_messages
from accord_checks.breaking_rules.all_rules import BREAKING_RULES
from accord_checks.lint_rules.all_rules import LINT_RULES
from tests.contracts import written_contracts
from tools.contracts import SCRIPTS

PLUGIN = SCRIPTS / "buf-plugin-accord"
CHECK = "/buf.plugin.check.v1.CheckService/Check"
CONFIGURATION = """version: v2
lint:
  use: [ACCORD]
  ignore: [accord/xds, buf]
breaking:
  use: [POLICY]
plugins:
  - plugin: buf-plugin-accord
"""
FOREIGN = """syntax = "proto3";
package foreign.v1;

service GreetService {
  rpc Greet(GreetRequest) returns (GreetResponse);
  rpc Watch(GreetRequest) returns (stream GreetResponse);
}
service EmptyService {}
message GreetRequest {
  string name = 1;
  repeated string titles = 2;
}
message GreetResponse {
  string text = 1;
}
"""
POLICY = """  option (accord.v1.service) = {
    owner: "team-greetings"
    defaults: {
      timeout: {seconds: 2}
      allow: ["*"]
    }
  };
"""
STATED = (
    FOREIGN.replace("package foreign.v1;", 'package foreign.v1;\nimport "accord/v1/policy.proto";')
    .replace("service GreetService {\n", "service GreetService {\n" + POLICY)
    .replace("  string name = 1;\n  repeated string titles = 2;\n", "  int64 id = 1;\n")
    .replace("  rpc Watch(GreetRequest) returns (stream GreetResponse);\n", "")
    .replace(
        "returns (GreetResponse);",
        "returns (GreetResponse) {\n    option idempotency_level = NO_SIDE_EFFECTS;\n  }",
    )
)


EVENT = """
  option (accord.v1.event) = {subject: "greeted" version: 1 key: "id"};"""


def module(root: Path, **files: str) -> Path:
    """A module of files, named without their ending."""
    named = {f"{name}.proto": text for name, text in files.items()}
    return written_contracts.write(root, named, CONFIGURATION)


def ask(procedure: str, given: bytes) -> plugin_messages.Response:
    """Call the plugin as `buf` does."""
    done = subprocess.run((PLUGIN, procedure), input=given, capture_output=True, check=True)
    assert done.stderr == b""
    return plugin_messages.Response.FromString(done.stdout)


def test_foreign_contracts_are_asked_for_a_policy_once_a_service(tmp_path: Path) -> None:
    """Contracts without any policy get one finding for each service that has RPCs, on its line."""
    root = module(tmp_path, foreign=FOREIGN)
    (said,) = written_contracts.findings(root, "lint")
    assert (said.rule, said.line, said.column) == ("ACCORD_POLICY_STATED", 4, 1)


def test_a_service_that_states_a_policy_is_judged_and_its_neighbours_are_not(
    tmp_path: Path,
) -> None:
    """Adoption goes service by service: the rules apply where a policy is stated."""
    bare = FOREIGN.replace("foreign.v1", "bare.v1")
    root = module(tmp_path, stated=STATED.replace("timeout: {seconds: 2}\n", ""), bare=bare)
    assert {(said.file, said.rule) for said in written_contracts.findings(root, "lint")} == {
        ("bare.proto", "ACCORD_POLICY_STATED"),
        ("stated.proto", "ACCORD_TIMEOUT_STATED"),
    }


def test_a_comment_leaves_a_finding_out(tmp_path: Path) -> None:
    """`// buf:lint:ignore RULE` above the element works as for buf's own rules."""
    ignored = FOREIGN.replace(
        "service GreetService", "// buf:lint:ignore ACCORD_POLICY_STATED\nservice GreetService"
    )
    assert written_contracts.findings(module(tmp_path, foreign=ignored), "lint") == []


def test_a_comment_at_the_rpc_leaves_a_finding_inside_its_policy_out(tmp_path: Path) -> None:
    """An option at fault is inside an RPC: the comment above the RPC is enough."""
    wrong = STATED.replace(
        "    option idempotency_level = NO_SIDE_EFFECTS;\n",
        "    option idempotency_level = NO_SIDE_EFFECTS;\n"
        "    option (accord.v1.policy) = {breaker: {failure_percent: 101}};\n",
    )
    root = module(tmp_path, stated=wrong)
    assert [said.rule for said in written_contracts.findings(root, "lint")] == [
        "ACCORD_POLICY_VALID"
    ]
    comment = "  // buf:lint:ignore ACCORD_POLICY_VALID\n  rpc Greet"
    module(tmp_path, stated=wrong.replace("  rpc Greet", comment))
    assert written_contracts.findings(root, "lint") == []


def test_a_comment_accepts_a_change(tmp_path: Path) -> None:
    """A change that is meant is accepted by a comment above the service, the RPC or the event."""
    before = module(tmp_path / "before", stated=STATED)
    shorter = STATED.replace("{seconds: 2}", "{seconds: 1}")
    after = module(tmp_path / "after", stated=shorter)
    command = ("breaking", "--against", str(before))
    (said,) = written_contracts.findings(after, *command)
    assert (said.rule, said.line) == ("POLICY_TIMEOUT_SHORTENED", 9)
    assert said.message.endswith(f"`// buf:lint:ignore {said.rule} timeout 2 s to 1 s: <why>`")
    for element, rule, left in (
        ("service GreetService", f"{said.rule} timeout 2 s to 1 s: callers know", 0),
        ("  rpc Greet", f"{said.rule}  timeout 2 s to  1 s: callers know", 0),
        ("  rpc Greet", f"{said.rule} timeout 2 s to 1 s", 1),
        ("  rpc Greet", f"{said.rule} timeout 2 s to 1 s: ", 1),
        ("  rpc Greet", f"{said.rule}: callers know", 1),
        ("  rpc Greet", f"{said.rule} timeout 2 s to 500 ms: callers know", 1),
        ("  rpc Greet", f"{said.rule}_TOO timeout 2 s to 1 s: callers know", 1),
        ("message GreetRequest", f"{said.rule} timeout 2 s to 1 s: callers know", 1),
    ):
        module(after, stated=shorter.replace(element, f"// buf:lint:ignore {rule}\n{element}"))
        assert len(written_contracts.findings(after, *command)) == left


def test_a_comment_accepts_the_change_that_brings_it_and_no_later_one(tmp_path: Path) -> None:
    """Once the version before has it, it says nothing of what comes; a new line does."""
    line = "  // buf:lint:ignore POLICY_TIMEOUT_SHORTENED timeout 2 s to 1 s: agreed"
    comment = f"{line}\n  rpc Greet"
    accepted = STATED.replace("  rpc Greet", comment)
    before = module(tmp_path / "before", stated=accepted)
    shorter = accepted.replace("{seconds: 2}", "{seconds: 1}")
    after = module(tmp_path / "after", stated=shorter)
    command = ("breaking", "--against", str(before))
    assert [said.rule for said in written_contracts.findings(after, *command)] == [
        "POLICY_TIMEOUT_SHORTENED"
    ]
    module(after, stated=shorter.replace("agreed", "agreed again"))
    assert written_contracts.findings(after, *command) == []


def test_a_stale_comment_accepts_nothing_where_the_version_before_has_no_comments(
    tmp_path: Path,
) -> None:
    """An image without source info does not show that a line is old: its values do."""
    line = "  // buf:lint:ignore POLICY_TIMEOUT_SHORTENED timeout 3 s to 2 s: agreed"
    accepted = STATED.replace("  rpc Greet", f"{line}\n  rpc Greet")
    before = module(tmp_path / "before", stated=accepted)
    bare = tmp_path / "bare.binpb"
    build = ("build", "--exclude-source-info", "-o", str(bare))
    written_contracts.buf(before, *build).check_returncode()
    shorter = accepted.replace("{seconds: 2}", "{seconds: 1}")
    after = module(tmp_path / "after", stated=shorter)
    command = ("breaking", "--against", str(bare))
    assert [said.rule for said in written_contracts.findings(after, *command)] == [
        "POLICY_TIMEOUT_SHORTENED"
    ]
    module(after, stated=shorter.replace("3 s to 2 s", "2 s to 1 s"))
    assert written_contracts.findings(after, *command) == []


def test_an_event_that_is_gone_is_found_in_its_file(tmp_path: Path) -> None:
    """Its message is gone, too: the file is named, and a comment at its head accepts it."""
    event = """message Greeted {
  option (accord.v1.event) = {subject: "greeted" version: 1 key: "id"};
  string id = 1;
}
"""
    before = module(tmp_path / "before", stated=STATED + event)
    after = module(tmp_path / "after", stated=STATED)
    command = ("breaking", "--against", str(before))
    (said,) = written_contracts.findings(after, *command)
    assert (said.file, said.rule) == ("stated.proto", "POLICY_EVENT_REMOVED")
    comment = "// buf:lint:ignore POLICY_EVENT_REMOVED greeted: nobody consumes it\n"
    for head in ("syntax =", "package "):
        module(after, stated=STATED.replace(head, comment + head, 1))
        assert written_contracts.findings(after, *command) == []
    module(before, stated=comment + STATED + event)
    module(after, stated=comment + STATED)
    assert len(written_contracts.findings(after, *command)) == 1
    (after / "stated.proto").rename(after / "other.proto")
    assert [said.rule for said in written_contracts.findings(after, *command)] == [
        "POLICY_EVENT_REMOVED"
    ]
    only = "use: [POLICY]\n  ignore_only: {POLICY_EVENT_REMOVED: [stated.proto]}"
    (after / "buf.yaml").write_text(CONFIGURATION.replace("use: [POLICY]", only))
    assert written_contracts.findings(after, *command) == []


def test_a_comment_accepts_an_event_that_is_none_any_more(tmp_path: Path) -> None:
    """The comment stands above the message that was the event."""
    message = "message Greeted {\n%s  string id = 1;\n}\n"
    option = '  option (accord.v1.event) = {subject: "greeted" version: 1 key: "id"};\n'
    before = module(tmp_path / "before", stated=STATED + message % option)
    command = ("breaking", "--against", str(before))
    after = module(tmp_path / "after", stated=STATED + message % "")
    assert [said.rule for said in written_contracts.findings(after, *command)] == [
        "POLICY_EVENT_REMOVED"
    ]
    comment = "// buf:lint:ignore POLICY_EVENT_REMOVED greeted: nobody consumes it\n"
    module(after, stated=STATED + comment + message % "")
    assert written_contracts.findings(after, *command) == []


def test_an_option_that_moves_to_the_defaults_is_no_change(tmp_path: Path) -> None:
    """Policies are compared as they come out, wherever they are written."""
    before = module(tmp_path / "before", stated=STATED)
    own = "NO_SIDE_EFFECTS;\n    option (accord.v1.policy) = {timeout: {seconds: 2}};"
    moved = STATED.replace("      timeout: {seconds: 2}\n", "").replace("NO_SIDE_EFFECTS;", own)
    after = module(tmp_path / "after", stated=moved)
    assert written_contracts.findings(after, "breaking", "--against", str(before)) == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            """syntax = "proto2";
package old.v1;
message Thing {
  required string name = 1;
  optional group Part = 2 { optional int32 size = 1; }
  extensions 100 to 200;
}
extend Thing { optional string more = 100; }
service OldService { rpc Get(Thing) returns (Thing); }
""",
            id="proto2",
        ),
        pytest.param(
            """edition = "2023";
package new.v1;
option features.field_presence = IMPLICIT;
message Thing {
  string name = 1;
  Thing inner = 2 [features.message_encoding = DELIMITED];
}
service NewService { rpc Get(Thing) returns (Thing); }
""",
            id="edition",
        ),
        pytest.param(
            """syntax = "proto3";
message Thing { message Inner { map<string, Thing> things = 1; } Inner inner = 1; }
service Rootless { rpc Get(Thing.Inner) returns (stream Thing); }
""",
            id="no package, recursive",
        ),
        pytest.param(
            """syntax = "proto3";
package a.b.c.d.v1;
import "google/protobuf/any.proto";
import "google/protobuf/struct.proto";
service DeepService { rpc Get(google.protobuf.Any) returns (google.protobuf.Struct); }
""",
            id="nested package, well-known types",
        ),
    ],
)
def test_odd_contracts_are_judged_like_any_other(text: str, tmp_path: Path) -> None:
    """Whatever `buf` compiles gets findings about policies, never a failure of the plugin."""
    root = tmp_path / "module"
    root.mkdir()
    (root / "odd.proto").write_text(text)
    (root / "buf.yaml").write_text(CONFIGURATION)
    assert [said.rule for said in written_contracts.findings(root, "lint")] == [
        "ACCORD_POLICY_STATED"
    ]
    assert written_contracts.findings(root, "breaking", "--against", str(root)) == []


def test_somebody_else_s_option_of_the_same_number(tmp_path: Path) -> None:
    """Accord's number may be in use for something else: one line says so."""
    root = tmp_path / "module"
    root.mkdir()
    (root / "odd.proto").write_text("""syntax = "proto3";
package other.v1;
import "google/protobuf/descriptor.proto";
extend google.protobuf.ServiceOptions { string mine = 51010; }
message Thing {}
service OtherService {
  option (mine) = "not a message of Accord's";
  rpc Get(Thing) returns (Thing);
}
""")
    (root / "buf.yaml").write_text(CONFIGURATION)
    done = written_contracts.buf(root, "lint")
    assert done.returncode == 1
    assert "odd.proto has an option of its own with the number 51010" in done.stderr
    assert done.stderr.count("\n") == 1


def test_another_option_under_the_name_of_protovalidate(tmp_path: Path) -> None:
    """Where `buf.validate.field` is something else, nothing is said about bounds."""
    field = "  int64 id = 1;\n"
    option = '  string name = 2 [(buf.validate.field) = "short"];\n'
    text = STATED.replace(field, field + option).replace(
        "import ", 'import "buf/validate/validate.proto";\nimport '
    )
    root = module(tmp_path, stated=text)
    (root / "buf/validate/validate.proto").write_text("""syntax = "proto3";
package buf.validate;
import "google/protobuf/descriptor.proto";
extend google.protobuf.FieldOptions { string field = 51234; }
""")
    assert written_contracts.findings(root, "lint") == []


def test_a_policy_in_proto2_and_in_an_edition(tmp_path: Path) -> None:
    """Policies are read from files of any syntax."""
    text = STATED.partition("\n")[2].replace("timeout: {seconds: 2}\n", "")
    old = text.replace("foreign.v1", "old.v1").replace("  string ", "  optional string ")
    old = old.replace("  int64 ", "  optional int64 ")
    new = text.replace("foreign.v1", "new.v1")
    root = module(tmp_path, old='syntax = "proto2";\n' + old, new='edition = "2023";\n' + new)
    found = [(said.file, said.rule) for said in written_contracts.findings(root, "lint")]
    assert ("old.proto", "ACCORD_TIMEOUT_STATED") in found
    assert ("new.proto", "ACCORD_TIMEOUT_STATED") in found


@pytest.mark.parametrize(
    ("option", "new", "line", "name"),
    [
        ("NO_SIDE_EFFECTS;", "    option (accord.v1.policy) = {novelty: 7};", 15, "Greet"),
        ('"team-greetings"', "    novelty: 7", 6, "GreetService"),
        ("    defaults: {", "      novelty: 7", 6, "GreetService"),
        ("    defaults: {", "      retry: {max_attempts: 3 novelty: 7}", 6, "GreetService"),
        ("message GreetRequest {", f"{EVENT[:-2]} novelty: 7}};", 20, "GreetRequest"),
    ],
)
def test_a_vocabulary_that_is_newer_than_the_library(
    option: str, new: str, line: int, name: str, tmp_path: Path
) -> None:
    """An option that this version does not know is one clear line, wherever it is written."""
    root = module(tmp_path, stated=STATED.replace(option, f"{option}\n{new}"))
    vocabulary = root / "accord/v1/policy.proto"
    text = vocabulary.read_text()
    for message in ("MethodPolicy", "ServicePolicy", "Retry", "EventPolicy"):
        begin = f"message {message} {{"
        text = text.replace(begin, f"{begin}\n  // New.\n  int32 novelty = 4711;")
    vocabulary.write_text(text)
    (said,) = [
        said
        for said in written_contracts.findings(root, "lint")
        if said.rule == "ACCORD_POLICY_VALID"
    ]
    assert said.line == line
    assert f"the policy of {name} has a field 4711 that this version does" in said.message


BARE = """syntax = "proto3";
package bare.v1;
import "accord/v1/policy.proto";
service BareService {
  option (accord.v1.service) = {owner: "team-bare"};
%s}
message Thing {}
"""
GET = """  rpc Get%s(Thing) returns (Thing) {
    option idempotency_level = NO_SIDE_EFFECTS;%s
  }
"""
WATCH = """  rpc Watch%s(Thing) returns (stream Thing) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (accord.v1.policy) = {stream: {not_resumable: "It shows the present."}};
  }
"""
OWN = '\n    option (accord.v1.policy) = {timeout: {seconds: 2} allow: ["*"]};'


def test_what_no_rpc_of_a_service_states_is_said_once(tmp_path: Path) -> None:
    """A service that lacks a default has one finding for it; one RPC that lacks it has its own."""
    rpcs = "".join(GET % (n, "") + WATCH % n for n in range(10))
    found = written_contracts.findings(module(tmp_path / "many", bare=BARE % rpcs), "lint")
    assert [(said.line, said.rule, said.message.partition(":")[0]) for said in found] == [
        (5, "ACCORD_CALLERS_STATED", "no caller is named for any RPC of BareService"),
        (
            5,
            "ACCORD_TIMEOUT_STATED",
            "no longest life is stated for the stream of any RPC of BareService",
        ),
        (
            5,
            "ACCORD_TIMEOUT_STATED",
            "no timeout is stated for any RPC of BareService",
        ),
    ]
    rpcs = GET % ("A", OWN) + GET % ("B", "") + GET % ("C", "")
    found = written_contracts.findings(module(tmp_path / "some", bare=BARE % rpcs), "lint")
    assert [said.line for said in found] == [10, 10, 13, 13]


def test_a_wrong_default_is_found_once(tmp_path: Path) -> None:
    """What is wrong for all RPCs of a service, in one place, is said of its defaults."""
    wrong = """
    owner: "team-bare"
    defaults: {
      timeout: {seconds: 2}
      allow: ["team", "*"]
      errors: ["GONE", "GONE"]
      retry: {max_attempts: 2 initial_backoff: {seconds: 3} codes: [STATUS_CODE_DATA_LOSS]}
      stream: {idle: {seconds: 9} max_lifetime: {seconds: 9} not_resumable: "It is short."}
    }
"""
    watch = GET.replace("returns (Thing)", "returns (stream Thing)").replace("Get", "Watch")
    text = BARE % (GET % ("A", "") + GET % ("B", "") + watch % ("A", "") + watch % ("B", ""))
    found = written_contracts.findings(
        module(tmp_path, bare=text.replace('owner: "team-bare"', wrong)), "lint"
    )
    assert [(said.rule, said.line) for said in found] == [
        ("ACCORD_CALLERS_VALID", 9),
        ("ACCORD_CALLERS_VALID", 9),
        ("ACCORD_LISTED_ONCE", 10),
        ("ACCORD_RETRY_CODES", 11),
        ("ACCORD_RETRY_FITS", 11),
        ("ACCORD_STREAM_KEEPALIVE", 12),
    ]
    assert all("of the defaults of BareService" in said.message for said in found)


def test_bounds_are_asked_for_where_they_can_be_stated(tmp_path: Path) -> None:
    """Whose file, or whose request's file, imports protovalidate is judged; a neighbour is not."""
    service = """syntax = "proto3";
package %s.v1;
import "accord/v1/policy.proto";
%sservice GreetService {
%s  rpc Greet(%s) returns (GreetResponse) {
    option idempotency_level = NO_SIDE_EFFECTS;
  }
}
%smessage GreetResponse {}
"""
    request, validate = (
        "message GreetRequest {\n  string name = 1;\n}\n",
        'import "buf/validate/validate.proto";\n',
    )
    root = module(
        tmp_path,
        none=service % ("none", "", POLICY, "GreetRequest", request),
        own=service % ("own", validate, POLICY, "GreetRequest", request),
        held=service % ("held", 'import "request.proto";\n', POLICY, "request.v1.GreetRequest", ""),
        request='syntax = "proto3";\npackage request.v1;\n' + validate + request,
    )
    found = written_contracts.findings(root, "lint")
    assert {(said.file, said.rule) for said in found} == {
        ("own.proto", "ACCORD_FIELD_LIMITED"),
        ("request.proto", "ACCORD_FIELD_LIMITED"),
    }


def test_a_map_is_bounded_where_it_is_written(tmp_path: Path) -> None:
    """Its length, its keys and its values are asked for at the field; what is advised will do."""
    advised = ["map.max_pairs = 100", "map.keys.string.max_len = 200"]
    advised.append("map.values.bytes.max_len = 1024")
    for count in range(len(advised) + 1):
        options = ", ".join(f"(buf.validate.field).{written}" for written in advised[:count])
        field = f"  map<string, bytes> titles = 2{f' [{options}]' if options else ''};"
        text = STATED.replace("  int64 id = 1;", field).replace(
            "import ", 'import "buf/validate/validate.proto";\nimport '
        )
        found = written_contracts.findings(module(tmp_path, stated=text), "lint")
        assert [said.message.rpartition("write ")[2] for said in found] == [
            f"`[(buf.validate.field).{missing}]`" for missing in advised[count : count + 1]
        ]
        assert all(said.message.startswith("GreetRequest.titles, which") for said in found)


def test_a_cycle_of_imports_is_buf_s_own_error(tmp_path: Path) -> None:
    """What does not compile never reaches the plugin."""
    root = module(
        tmp_path,
        a='syntax = "proto3";\nimport "b.proto";\n',
        b='syntax = "proto3";\nimport "a.proto";\n',
    )
    done = written_contracts.buf(root, "lint")
    assert done.returncode != 0
    assert "cyclic import" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "given", [b"\xff", b"\x0a\x05\x0a\x03abc\xff", b"\x0a\x04\x12\x02\x0a\x50"]
)
def test_a_request_that_is_cut_off_is_one_clear_line(given: bytes) -> None:
    """Bytes that are no request become an error in the response."""
    error = ask(CHECK, given).error
    assert error.message == "what was sent is not a request of buf, or not all of it"


def test_files_that_do_not_fit_together_are_one_clear_line() -> None:
    """An image without the files that it imports is refused by name."""
    proto = b"\x0a\x07a.proto\x1a\x0cgone/b.proto"
    file = plugin_messages.CheckRequest()
    file.files.add(descriptor=proto)
    request = plugin_messages.Request()
    request.value.value = file.SerializeToString()
    error = ask(CHECK, request.SerializeToString()).error
    assert error.message.startswith("a.proto: ")
    assert "\n" not in error.message


def test_a_person_who_starts_the_plugin_is_told_what_it_is() -> None:
    """Without the arguments of buf it says one line and exits with 2."""
    done = subprocess.run((PLUGIN,), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "buf.yaml" in done.stderr


def test_buf_lists_the_rules(tmp_path: Path) -> None:
    """`buf config ls-lint-rules` and `ls-breaking-rules` show ids, categories and purposes."""
    root = module(tmp_path, foreign=FOREIGN)
    lint = written_contracts.buf(root, "config", "ls-lint-rules").stdout
    breaking = written_contracts.buf(root, "config", "ls-breaking-rules").stdout
    for rule in LINT_RULES:
        assert f"{rule.id} " in lint
        assert rule.purpose in lint
    for change in BREAKING_RULES:
        assert f"{change.id} " in breaking
        assert change.purpose in breaking


def test_three_hundred_rpcs(tmp_path: Path) -> None:
    """A large set of contracts is judged as a whole: each RPC once, calls across files too."""
    files = {}
    for number in range(30):
        rpcs = "".join(
            f"""
  rpc Get{index}(GetRequest) returns (GetResponse) {{
    option idempotency_level = NO_SIDE_EFFECTS;
    option (accord.v1.policy) = {{
      calls: {{
        method: "many{number + 1}.v1.ManyService/Get{index}"
        timeout: {{seconds: 1}}
      }}
    }};
  }}"""
            for index in range(10)
        )
        files[f"many{number}"] = f"""syntax = "proto3";
package many{number}.v1;
import "accord/v1/policy.proto";
service ManyService {{
  option (accord.v1.service) = {{owner: "a" defaults: {{timeout: {{seconds: 2}} allow: ["*"]}}}};
{rpcs}
}}
message GetRequest {{}}
message GetResponse {{}}
"""
    found = written_contracts.findings(module(tmp_path, **files), "lint")
    rules = [said.rule for said in found]
    assert rules.count("ACCORD_CALL_EXISTS") == 10  # of the last file, nothing follows it
    assert rules.count("ACCORD_CALL_DEPTH") == 27 * 10  # chains longer than two hops
    assert set(rules) == {"ACCORD_CALL_EXISTS", "ACCORD_CALL_DEPTH", "ACCORD_CALL_ROOM"}
