"""What users may import: it exists, is documented, is type-checked, and is all that we import."""

import ast
import inspect
import itertools
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

import accord
from tests.accord import typical_use

ROOT: Final = Path(accord.__file__).parent
REPOSITORY: Final = ROOT.parents[1]

PUBLIC: Final = {
    "accord": " ".join(accord.__all__),
    "accord.admin.mesh_service": "Audit CONTRACT Intervention serve",
    "accord.client.service_config": "ServiceConfigError",
    "accord.context": (
        "ANONYMOUS CallContext Idempotency cache_for carry current deadline detach"
        " idempotency_key shows without_user"
    ),
    "accord.contract": (
        "CompensationPolicy ContractError Dark EdgePolicy EventPolicy"
        " FloorPolicy Key LIVE_FIELDS LimitPolicy MethodPolicy Reading ResumePolicy SagaPolicy"
        " StreamPolicy check_service event_policy live_policy merge_options method_policy"
        " read_event read_method"
    ),
    "accord.contract.live_overrides": (
        "FileSource Layer OverrideRefused PolicySource PolicyStore parse"
    ),
    "accord.contract.names": "described meant method_name",
    "accord.edge": "Authenticator Caller Edge EdgeLimits KeySet Route routes_of",
    "accord.edge.headers": "accepts timeout",
    "accord.edge.problem": "EdgeError Failure failure",
    "accord.errors": (
        "Aborted AlreadyExists CODES DETAILS_KEY DeadlineExceeded FailedPrecondition"
        " IdempotencyConflict InvalidArgument NotFound OutOfRange PermissionDenied Precondition"
        " Resource ResourceExhausted ServiceError Translate Unauthenticated Unavailable failure_of"
    ),
    "accord.identity": "Bundle Identity IdentityError LAYOUTS",
    "accord.identity.users": "ISSUERS LEEWAY MAX_LIFE USER_KEY User UserTokens issue",
    "accord.interfaces": (
        "FieldViolation IdempotencyStore StoredAnswer SyncIdempotencyStore Validator"
    ),
    "accord.mesh": "Mesh",
    "accord.policies.breaker": "BreakerPolicy",
    "accord.policies.budget": "BudgetPolicy",
    "accord.policies.cache": "CachePolicy",
    "accord.policies.consistency": "Token",
    "accord.policies.fault_injection": "FaultPolicy",
    "accord.policies.hedge": "HedgePolicy",
    "accord.policies.idempotency": "Scope fingerprint",
    "accord.policies.rate_limit": "RatePolicy",
    "accord.policies.retry": "Retry RetryPolicy Stop",
    "accord.policies.types": "Code Priority",
    "accord.server.authorization": "EVERYBODY NO_IDENTITY denial opened ruling",
    "accord.stores": (
        "DbApiStore KEPT MIGRATIONS SqliteStore Tx find key record settle settled sweep"
    ),
    "accord.sync.mesh": "SyncMesh",
    "accord.telemetry": "HEADERS trace_headers trace_id use_trace",
    "accord.testing": (
        "Attempt Clock Draws FaultyServer Step drop fail hang no_waiting reply serve"
    ),
    "accord.xds": "ControlPlane Ejection Route RouteError Rule TargetState XdsError parse"
    " remove_socket",
}
"""Modules -> names. The README has the same table; what is not in it may change at any time."""

GENERATED: Final = ("accord.v1", "accord.ops.v1")
"""Packages of generated code, all of it public: the vocabulary and the operator's RPCs."""


def _names() -> Iterator[tuple[str, str]]:
    for module, names in PUBLIC.items():
        for name in names.split():
            yield module, name


def _documented(name: str) -> bool:
    """Whether a constant or an alias of this name has a text below it, where it is assigned."""
    for file in ROOT.rglob("*.py"):
        if "_pb2" in file.name:
            continue
        body = ast.parse(file.read_text()).body
        for node, after in itertools.pairwise(body):
            if isinstance(node, ast.Assign):
                targets = [*node.targets]
            elif isinstance(node, ast.AnnAssign):
                targets = [node.target]
            else:
                continue
            named = any(isinstance(target, ast.Name) and target.id == name for target in targets)
            text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if named and text:
                return True
    return False


@pytest.mark.parametrize(("module", "name"), list(_names()))
def test_exists_and_is_documented(module: str, name: str) -> None:
    """Every public name can be imported and says what it is."""
    found = inspect.unwrap(getattr(import_module(module), name))
    if isinstance(found, type) or hasattr(found, "__code__"):
        assert found.__doc__
    else:
        assert _documented(name)


def _imports(file: Path) -> Iterator[tuple[str, str]]:
    """What a file imports from the library, by module and name."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] == "accord":
                yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("accord."):
                    yield alias.name, ""


def test_is_type_checked() -> None:
    """Typical code that mypy checks uses every public name, by one of the ways to it."""
    used = {name for _, name in _imports(Path(typical_use.__file__))}
    assert {name for _, name in _names()} == used


@pytest.mark.parametrize("folder", ["services", "shopctl", "runtime"])
def test_users_keep_to_it(folder: str) -> None:
    """The shop and its runtime use public names only."""
    public = set(_names())
    for file in (REPOSITORY / folder).rglob("*.py"):
        for module, name in _imports(file):
            generated = module.startswith(GENERATED)
            assert generated or (module, name) in public, f"{file}: {module} {name}"


def test_readme_has_the_same_table() -> None:
    """The README lists these modules with these names."""
    text = (ROOT.parent / "README.md").read_text()
    table = text.partition("<!-- public -->")[2].partition("<!-- end -->")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (.+) \|$", table, re.MULTILINE)
    listed = {module: " ".join(re.findall(r"`(\w+)`", names)) for module, names in rows}
    assert listed == {**PUBLIC, **dict.fromkeys(GENERATED, "")}
