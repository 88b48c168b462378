"""Careless and evil edits of contracts: the gate of docs/contract-checks.md stops each one.

Of contracts of a bank, which keep to every rule. The gate is what the page has in CI, configured as
it shows. What is a matter of our own rules is asked of the plugin, without the seconds of `buf`.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from accord_checks.breaking_rules.all_rules import BREAKING_RULES
from tests.contracts import written_contracts
from tests.contracts.test_rule_findings import replace
from tools.contracts import ROOT, SCRIPTS

PAGE = ROOT / "docs" / "contract-checks.md"
OURS = {rule.id for rule in BREAKING_RULES if "POLICY" in rule.categories}

ACCOUNTS = "protos/bank/accounts/v1/accounts.proto"
TRANSFERS = "protos/bank/transfers/v1/transfers.proto"
EVENTS = "protos/bank/transfers/v1/events.proto"
VOCABULARY = "protos/accord/v1/policy.proto"
BASELINE = "accord-baseline.txt"

CACHE = 'ttl: {seconds: 9} invalidated_by: ["bank.transfers.v1.TransferService/Pay"]'
CALLERS = 'allow: ["spiffe://bank.internal/transfers"]'
DEBIT_CALLERS = f"      {CALLERS}\n      compensation"
DEFAULT_CALLERS = f"      {CALLERS}\n    }}\n  }};"
RELEASES = 'method: "bank.accounts.v1.AccountService/Release"'
STEPS = """          "bank.accounts.v1.AccountService/Debit",
          "bank.transfers.v1.TransferService/Pay",
"""
PIVOT = '        pivot: "bank.transfers.v1.TransferService/Pay"\n'
FLOOR = """      floor: {
        timeout: {seconds: 3}
        max_attempts: 2
      }
"""
DEBIT = "  // Takes money.\n  rpc Debit("
CLOSE = """  // Closes an account.
  rpc CloseAccount(CloseAccountRequest) returns (CloseAccountResponse) {
    option (accord.v1.policy) = {
      idempotency: {key: KEY_REQUIRED}
      limit: {priority: PRIORITY_SHEDDABLE}
      max_depth: 0
    };
  }

"""
RULES = 'import "buf/validate/validate.proto";\n'
RULE = re.compile(r" \[\(buf\.validate\.field\)[^;]*\](?=;)")
POLICY = "    option (accord.v1.policy) = {\n"
REPORT = f"  rpc Report(ReportRequest) returns (ReportResponse) {{\n{POLICY}"
ACCEPTED = "buf:lint:ignore POLICY_TIMEOUT_SHORTENED timeout 3 s to 1 s: it only begins"
LINE = "// buf:lint:ignore POLICY_TIMEOUT_SHORTENED timeout {}: nobody waits longer\n"
FASTER = (ACCOUNTS, "timeout: {seconds: 5}", "timeout: {seconds: 4}")


@dataclass(frozen=True)
class Edit:
    """What somebody does, and what stops it."""

    name: str
    stopped_by: str
    """A rule, or the file that the gate refuses."""
    texts: tuple[tuple[str, str, str], ...]
    """File, what stood there, and what does now."""
    then: Callable[[str], str] | None = None
    """What else is done to the first of the files."""


def edit(name: str, stopped_by: str, *texts: tuple[str, str, str]) -> Edit:
    return Edit(name, stopped_by, texts)


EDITS = [
    # Who may call.
    edit(
        "callers widened by a default",
        "POLICY_CALLERS_OPENED",
        (ACCOUNTS, DEFAULT_CALLERS, DEFAULT_CALLERS.replace(CALLERS, 'allow: ["*"]')),
    ),
    edit(
        "a caller of every RPC, by a default",
        "POLICY_CALLERS_OPENED",
        (ACCOUNTS, DEFAULT_CALLERS, DEFAULT_CALLERS.replace("]", ', "spiffe://bank.internal/x"]')),
    ),
    edit(
        "own callers given up for a wider default",
        "POLICY_CALLERS_OPENED",
        (ACCOUNTS, DEBIT_CALLERS, "      compensation"),
        (ACCOUNTS, DEFAULT_CALLERS, DEFAULT_CALLERS.replace("]", ', "spiffe://bank.internal/x"]')),
    ),
    edit(
        "a caller of another trust domain",
        "POLICY_CALLERS_OPENED",
        (
            ACCOUNTS,
            DEBIT_CALLERS,
            DEBIT_CALLERS.replace("]", ', "spiffe://evil.example/transfers"]'),
        ),
    ),
    edit(
        "callers emptied, which means the default",
        "POLICY_CALLERS_OPENED",
        (ACCOUNTS, DEBIT_CALLERS, "      allow: []\n      compensation"),
        (ACCOUNTS, DEFAULT_CALLERS, DEFAULT_CALLERS.replace(CALLERS, 'allow: ["*"]')),
    ),
    edit(
        "callers dropped with their default",
        "POLICY_CALLERS_OPENED",
        (ACCOUNTS, DEFAULT_CALLERS, "    }\n  };"),
    ),
    edit(
        "a caller that looks the same",
        "POLICY_CALLER_REMOVED",
        (TRANSFERS, "bank.internal/web", "bank.internal/Web"),
    ),
    # Keys and repeats.
    edit(
        "the kind of a key changed",
        "POLICY_IDEMPOTENCY_WEAKENED",
        (
            ACCOUNTS,
            "idempotency: {key: KEY_REQUIRED}\n      allow",
            "idempotency: {key: KEY_NATURAL}\n      allow",
        ),
    ),
    edit(
        "a key that is demanded at once",
        "POLICY_KEY_REQUIRED",
        (ACCOUNTS, "    option idempotency_level = IDEMPOTENT;\n", ""),
        (ACCOUNTS, "KEY_NATURAL", "KEY_REQUIRED"),
    ),
    edit(
        "a change declared to be a read",
        "POLICY_IDEMPOTENCY_WEAKENED",
        (
            ACCOUNTS,
            f"{POLICY}      idempotency: {{key: KEY_REQUIRED}}\n      limit",
            f"    option idempotency_level = NO_SIDE_EFFECTS;\n{POLICY}      limit",
        ),
    ),
    edit(
        "codes of a retry for what is not idempotent",
        "ACCORD_RETRY_IDEMPOTENT",
        (
            TRANSFERS,
            "{seconds: 4}\n      idempotency: {key: KEY_REQUIRED}",
            "{seconds: 4}\n      retry: {max_attempts: 3 codes: [STATUS_CODE_INTERNAL]}",
        ),
    ),
    edit(
        "a retry on codes that never come",
        "POLICY_RETRY_REMOVED",
        (ACCOUNTS, "codes: [STATUS_CODE_UNAVAILABLE]", "codes: [STATUS_CODE_ABORTED]"),
    ),
    edit(
        "fewer attempts",
        "POLICY_RETRY_REMOVED",
        (ACCOUNTS, "max_attempts: 3", "max_attempts: 2"),
    ),
    edit(
        "a retry of a refusal",
        "ACCORD_RETRY_CODES",
        (
            ACCOUNTS,
            "[STATUS_CODE_UNAVAILABLE]",
            "[STATUS_CODE_UNAVAILABLE, STATUS_CODE_PERMISSION_DENIED]",
        ),
    ),
    edit(
        "a cache of changes, by a default",
        "ACCORD_CACHE_READS",
        (
            TRANSFERS,
            "      timeout: {seconds: 3}\n",
            f"      timeout: {{seconds: 3}}\n      cache: {{{CACHE}}}\n",
        ),
    ),
    edit(
        "a write that no longer drops what is kept",
        "POLICY_CACHE_STALE",
        (ACCOUNTS, '          "bank.accounts.v1.AccountService/Debit",\n', ""),
    ),
    edit(
        "an answer kept for ever",
        "POLICY_CACHE_STALE",
        (ACCOUNTS, "ttl: {seconds: 30}", "ttl: {seconds: 86400}"),
    ),
    # Bounds.
    edit("floors gone", "POLICY_FLOOR_LOWERED", (ACCOUNTS, FLOOR, "")),
    edit(
        "a rate that bounds nothing",
        "POLICY_BOUND_REMOVED",
        (ACCOUNTS, "per_second: 100", "per_second: 1000000"),
    ),
    edit(
        "a rate that starves callers",
        "POLICY_LIMIT_LOWERED",
        (ACCOUNTS, "per_second: 100", "per_second: 1"),
    ),
    edit(
        "a default's bound lost by a limit of one's own",
        "POLICY_BOUND_REMOVED",
        (ACCOUNTS, "      cache: {", "      limit: {}\n      cache: {"),
    ),
    edit(
        "a breaker that never opens",
        "POLICY_BOUND_REMOVED",
        (
            ACCOUNTS,
            "breaker: {}",
            "breaker: {failure_percent: 100 min_calls: 4000000 consecutive_failures: 4000000}",
        ),
    ),
    edit(
        "priority above all others",
        "POLICY_PRIORITY_RAISED",
        (ACCOUNTS, "PRIORITY_SHEDDABLE", "PRIORITY_CRITICAL"),
    ),
    edit("a greater depth", "POLICY_DEPTH_RAISED", (ACCOUNTS, "max_depth: 1", "max_depth: 2")),
    edit(
        "depth of the edge given up", "POLICY_DEPTH_RAISED", (ACCOUNTS, "      max_depth: 0\n", "")
    ),
    edit(
        "a depth beyond all",
        "ACCORD_CALL_DEPTH",
        (ACCOUNTS, "max_depth: 1", "max_depth: 8"),
    ),
    edit(
        "an attempt without time",
        "POLICY_TIMEOUT_SHORTENED",
        (ACCOUNTS, "attempt_timeout: {seconds: 2}", "attempt_timeout: {nanos: 1000000}"),
    ),
    edit(
        "calls longer than their caller",
        "ACCORD_CALLS_FIT",
        (TRANSFERS, "        timeout: {seconds: 1}\n", "        timeout: {seconds: 3}\n"),
    ),
    edit(
        "a call longer than what it calls",
        "ACCORD_CALL_ROOM",
        (
            TRANSFERS,
            "        timeout: {seconds: 1}\n",
            "        timeout: {seconds: 2 nanos: 500000000}\n",
        ),
    ),
    edit(
        "a stream that lives for a day",
        "POLICY_BOUND_REMOVED",
        (ACCOUNTS, "max_lifetime: {seconds: 600}", "max_lifetime: {seconds: 86400}"),
    ),
    edit(
        "a stream that cannot be resumed",
        "POLICY_RESUME_CHANGED",
        (ACCOUNTS, '        response_field: "sequence"\n', '        response_field: "other"\n'),
        (ACCOUNTS, "  int64 sequence = 1;", "  int64 sequence = 1;\n  int64 other = 2;"),
    ),
    # Sagas.
    edit(
        "a saga in another order",
        "POLICY_SAGA_STEPS_CHANGED",
        (TRANSFERS, STEPS, "".join(f"{line}\n" for line in STEPS.splitlines()[::-1])),
    ),
    edit("a saga without its pivot", "POLICY_SAGA_STEPS_CHANGED", (TRANSFERS, PIVOT, "")),
    edit(
        "a saga without time",
        "ACCORD_SAGA_FITS",
        (TRANSFERS, "timeout: {seconds: 60}", "timeout: {seconds: 6}"),
    ),
    edit(
        "a compensation that leads elsewhere",
        "POLICY_COMPENSATION_CHANGED",
        (ACCOUNTS, RELEASES, RELEASES.replace("Release", "CloseAccount")),
    ),
    edit(
        "a compensation filled otherwise",
        "ACCORD_COMPENSATION_FILLED",
        (ACCOUNTS, 'from: "response.debit_id"', 'from: "request.cents"'),
    ),
    edit(
        "a compensation that its saga may not call",
        "POLICY_CALLER_REMOVED",
        (
            ACCOUNTS,
            "      idempotency: {key: KEY_NATURAL}\n",
            '      idempotency: {key: KEY_NATURAL}\n      allow: ["spiffe://bank.internal/web"]\n',
        ),
    ),
    # Events.
    edit(
        "the subject of another event",
        "ACCORD_EVENT_SUBJECT_UNIQUE",
        (EVENTS, "transfer.returned", "transfer.paid"),
    ),
    edit(
        "two subjects swapped",
        "POLICY_EVENT_SUBJECT_CHANGED",
        (EVENTS, "transfer.paid", "transfer.swapped"),
        (EVENTS, "transfer.returned", "transfer.paid"),
        (EVENTS, "transfer.swapped", "transfer.returned"),
    ),
    edit(
        "the subject of an event for a new one",
        "POLICY_EVENT_REMOVED",
        (EVENTS, "message TransferReturned {", "message TransferRejected {"),
    ),
    edit("a lower version", "POLICY_EVENT_VERSION_LOWERED", (EVENTS, "version: 2", "version: 1")),
    edit(
        "a key of another kind",
        "POLICY_EVENT_KEY_CHANGED",
        (EVENTS, 'version: 2\n    key: "transfer_id"', 'version: 2\n    key: "account_id"'),
    ),
    edit(
        "names of two fields swapped, one of them the key",
        "POLICY_EVENT_FIELD_REMOVED",
        (
            EVENTS,
            "  string transfer_id = 1;\n  string account_id = 2;",
            "  string account_id = 1;\n  string transfer_id = 2;",
        ),
    ),
    # Shapes.
    edit(
        "a method in another package",
        "RPC_NO_DELETE",
        (ACCOUNTS, CLOSE, ""),
        (TRANSFERS, "  // Reports a transfer.\n", CLOSE + "  // Reports a transfer.\n"),
        (
            TRANSFERS,
            "message PayResponse {}",
            "message PayResponse {}\n"
            "message CloseAccountRequest {}\nmessage CloseAccountResponse {}",
        ),
    ),
    edit(
        "a value of an enum renumbered",
        "ENUM_VALUE_SAME_NAME",
        (ACCOUNTS, "STATE_OPEN = 1;\n  STATE_CLOSED = 2;", "STATE_CLOSED = 1;\n  STATE_OPEN = 2;"),
    ),
    edit(
        "a reserved number used again",
        "RESERVED_MESSAGE_NO_DELETE",
        (ACCOUNTS, "  reserved 3;\n", ""),
        (ACCOUNTS, "  State state = 2;", "  State state = 2;\n  string note = 3;"),
    ),
    edit(
        "what is deprecated, as if it were not",
        "POLICY_DEPRECATION_REMOVED",
        (ACCOUNTS, "    option deprecated = true;\n", ""),
    ),
    edit(
        "a reason of an error renamed",
        "POLICY_ERROR_REMOVED",
        (ACCOUNTS, "NO_FUNDS", "NO_MONEY"),
    ),
    # Requests.
    edit("a rule tightened", "POLICY_VALIDATION_TIGHTENED", (ACCOUNTS, "lte: 100000", "lte: 100")),
    edit(
        "a rule that bounds nothing",
        "POLICY_VALIDATION_REMOVED",
        (ACCOUNTS, "lte: 100000", "lte: 9000000000000000000"),
    ),
    edit(
        "one rule of several gone",
        "POLICY_VALIDATION_REMOVED",
        (ACCOUNTS, '    pattern: "^[ -~]*$"\n', ""),
    ),
    Edit(
        "rules gone with their import",
        "POLICY_VALIDATION_REMOVED",
        ((ACCOUNTS, RULES, ""),),
        lambda text: RULE.sub("", text),
    ),
    # Lines that accept.
    edit(
        "a line that has accepted this once before",
        "POLICY_TIMEOUT_SHORTENED",
        (TRANSFERS, "      timeout: {seconds: 3}\n", "      timeout: {seconds: 1}\n"),
        (TRANSFERS, "        timeout: {seconds: 1}\n", "        timeout: {nanos: 900000000}\n"),
    ),
    edit(
        "a line of another method",
        "POLICY_TIMEOUT_SHORTENED",
        (ACCOUNTS, "timeout: {seconds: 2}\n", "timeout: {seconds: 1}\n"),
        (ACCOUNTS, "  // Closes", "  // " + LINE.format("2 s to 1 s")[3:] + "  // Closes"),
    ),
    edit(
        "a line copied from where it accepted something",
        "POLICY_TIMEOUT_SHORTENED",
        (TRANSFERS, REPORT, REPORT.replace(POLICY, f"{POLICY}      timeout: {{seconds: 1}}\n")),
        (TRANSFERS, "  // Reports", f"  // {ACCEPTED}\n  // Reports"),
    ),
    edit(
        "a line for the file",
        "POLICY_TIMEOUT_SHORTENED",
        FASTER,
        (ACCOUNTS, 'syntax = "proto3";', f'{LINE.format("5 s to 4 s")}syntax = "proto3";'),
    ),
    edit(
        "a line for the defaults that hides an RPC's own",
        "POLICY_TIMEOUT_SHORTENED",
        FASTER,
        (ACCOUNTS, "// Keeps accounts.\n", f"// Keeps accounts.\n{LINE.format('5 s to 4 s')}"),
    ),
    edit(
        "a line without a reason",
        "POLICY_TIMEOUT_SHORTENED",
        FASTER,
        (
            ACCOUNTS,
            DEBIT,
            "  // buf:lint:ignore POLICY_TIMEOUT_SHORTENED timeout 5 s to 4 s: -\n" + DEBIT,
        ),
    ),
    # The vocabulary.
    edit(
        "two numbers of the vocabulary swapped",
        "POLICY_IDEMPOTENCY_WEAKENED",
        (VOCABULARY, "KEY_REQUIRED = 1", "KEY_REQUIRED = 3"),
        (VOCABULARY, "KEY_NATURAL = 2", "KEY_NATURAL = 1"),
        (VOCABULARY, "KEY_REQUIRED = 3", "KEY_REQUIRED = 2"),
    ),
    edit(
        "the number of the vocabulary itself",
        "POLICY_REMOVED",
        (VOCABULARY, "MethodPolicy policy = 51010", "MethodPolicy policy = 51012"),
        (VOCABULARY, "ServicePolicy service = 51010", "ServicePolicy service = 51012"),
        (VOCABULARY, "EventPolicy event = 51010", "EventPolicy event = 51012"),
    ),
]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The contracts of the bank, in the repository that the page makes."""
    root = tmp_path_factory.mktemp("bank")
    shutil.copytree(Path(__file__).parent / "protos", root / "protos")
    for name in written_contracts.VOCABULARY:
        target = root / "protos" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "protos" / name, target)
    (configuration,) = re.findall(
        r"^```yaml\n# buf\.yaml\n(.*?)^```$", PAGE.read_text(), re.M | re.S
    )
    (root / "buf.yaml").write_text(configuration.replace("accord]", "accord, protos/buf]"))
    return root


def edited(made: Edit, bank: Path, work: Path) -> Path:
    """The repository after an edit."""
    root = shutil.copytree(bank, work / "edited")
    for file, old, new in made.texts:
        replace(root / file, old, new)
    if made.then is not None:
        first = root / made.texts[0][0]
        first.write_text(made.then(first.read_text()))
    return root


def stopped(root: Path, bank: Path) -> set[str]:
    """The rules of ours that stop it."""
    changed = {said.rule for said in written_contracts.annotated(root, bank)} & OURS
    return changed | {said.rule for said in written_contracts.annotated(root)}


@pytest.mark.parametrize("made", EDITS, ids=lambda made: made.name)
def test_an_edit_is_stopped(made: Edit, bank: Path, tmp_path: Path) -> None:
    """By the rule that is there for it: the plugin's, or one of those of `buf` itself."""
    root = edited(made, bank, tmp_path)
    if made.stopped_by.startswith(("ACCORD_", "POLICY_")):
        assert made.stopped_by in stopped(root, bank)
    else:
        against = ("--against", str(bank), "--config", str(bank / "buf.yaml"))
        found = written_contracts.findings(root, "breaking", *against)
        assert made.stopped_by in {said.rule for said in found}


SLOWER = (TRANSFERS, "timeout: {seconds: 4}", "timeout: {seconds: 3}")
KEYLESS = (TRANSFERS, "{seconds: 4}\n      idempotency: {key: KEY_REQUIRED}", "{seconds: 4}")
KNOWN = (
    "ACCORD_MUTATION_KEY bank/transfers/v1/transfers.proto: "
    "Pay may change something and requires no key\n"
)
GATE = [
    edit(
        "a comment against lint",
        "buf lint --error-format",
        KEYLESS,
        (TRANSFERS, "  rpc Pay(", "  // buf:lint:ignore ACCORD_MUTATION_KEY\n  rpc Pay("),
    ),
    edit(
        "a rule of lint left out",
        "buf lint --config",
        KEYLESS,
        ("buf.yaml", "lint:\n", "lint:\n  except: [ACCORD_MUTATION_KEY]\n"),
    ),
    edit(
        "a file that lint ignores",
        "buf lint --config",
        KEYLESS,
        ("buf.yaml", "[protos/accord", "[protos/bank/transfers, protos/accord"),
    ),
    edit(
        "a rule of changes left out",
        "buf breaking",
        SLOWER,
        ("buf.yaml", "except: [", "except: [POLICY_TIMEOUT_SHORTENED, "),
    ),
    edit(
        "the plugin taken away",
        "buf breaking",
        SLOWER,
        ("buf.yaml", "plugins:\n  - plugin: buf-plugin-accord\n", ""),
        ("buf.yaml", ", ACCORD]", "]"),
        ("buf.yaml", ", POLICY]", "]"),
    ),
    edit(
        "a baseline that grows",
        "accord contracts baseline",
        KEYLESS,
        (BASELINE, "# One.\n", f"# One.\n{KNOWN}"),
    ),
]


@pytest.mark.parametrize("made", [None, *GATE], ids=lambda made: made.name if made else "nothing")
def test_the_gate_is_not_edited(made: Edit | None, bank: Path, tmp_path: Path) -> None:
    """Whoever loosens, in a change, what judges it is stopped by what the base has."""
    base = shutil.copytree(bank, tmp_path / "base")
    (base / BASELINE).write_text("# One.\n")
    root = edited(made or edit("nothing", ""), base, tmp_path)
    failed = [command for command in commands() if not passes(command, root)]
    assert bool(failed) == (made is not None)
    assert made is None or any(command.startswith(made.stopped_by) for command in failed)


def commands() -> list[str]:
    """What the page has in CI, after the base is there."""
    found = re.findall(r"^      - run: ((?:buf|accord) .*)$", PAGE.read_text(), re.MULTILINE)
    assert len(found) == 4
    return found


def passes(command: str, root: Path) -> bool:
    path = os.pathsep.join((str(SCRIPTS), os.environ["PATH"]))
    done = subprocess.run(
        command.split(),
        cwd=root,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1, 100), done.stdout
    assert "Traceback" not in done.stdout
    return done.returncode == 0


def test_this_repository_leaves_no_finding_out() -> None:
    """Its own gate has no baseline, which none of its checks would compare."""
    assert not (ROOT / BASELINE).exists()
