"""Contracts: sagas, streams that cannot be resumed, and all problems of a policy at once."""

import pytest
from google.protobuf import descriptor_pool

import accord
from accord.contract import read_method
from tests.accord.contract.test_options_reader import declare

STEPS = 'steps: "a.v1.S/Reserve" steps: "a.v1.S/Ship"'


def test_a_saga_is_read() -> None:
    """Steps and pivot are full method names, the timeout is in seconds."""
    saga = accord.method_policy(
        declare(f'saga {{ timeout {{ seconds: 30 }} {STEPS} pivot: "a.v1.S/Ship" }}')
    ).saga
    assert saga is not None
    assert saga.timeout == 30
    assert saga.steps == ("/a.v1.S/Reserve", "/a.v1.S/Ship")
    assert saga.pivot == "/a.v1.S/Ship"


@pytest.mark.parametrize(
    ("saga", "field"),
    [
        (f"{STEPS}", "saga.timeout"),
        ("timeout { seconds: 1 }", "saga.steps"),
        ('timeout { seconds: 1 } steps: "Ship"', "saga.steps"),
        (f'timeout {{ seconds: 1 }} {STEPS} pivot: "a.v1.S/Charge"', "saga.pivot"),
    ],
)
def test_a_saga_that_cannot_be_run_is_refused(saga: str, field: str) -> None:
    """A server with such a contract does not start."""
    method = declare(f"saga {{ {saga} }}")
    with pytest.raises(accord.ContractError) as refused:
        accord.check_service(method[1:].rpartition("/")[0])
    assert refused.value.field == field


def test_a_reason_for_no_resume_is_read_and_contradicts_resume() -> None:
    """A stream says why it cannot be resumed, or how it is, not both."""
    reason = 'stream { not_resumable: "it shows the present" }'
    found = accord.method_policy(declare(reason, server_stream=True)).stream.not_resumable
    assert found == "it shows the present"
    both = reason + 'resume { request_field: "token" response_field: "token" }'
    with pytest.raises(accord.ContractError, match="contradicts"):
        accord.method_policy(declare(both, server_stream=True))


def test_all_problems_are_read_at_once() -> None:
    """A check of contracts learns every field that is wrong, and the policy without them."""
    method = declare(
        "timeout { seconds: 0 } retry { max_attempts: 9 } max_depth: 1 hedge { percentile: 3 }"
    )
    pool = descriptor_pool.Default()
    reading = read_method(pool.FindMethodByName(method[1:].replace("/", ".")))
    assert {problem.field for problem in reading.problems} == {
        "timeout",
        "retry.max_attempts",
        "hedge.percentile",
    }
    assert reading.written.retry.max_attempts == 9
    assert reading.policy.retry is None
    assert reading.policy.max_depth == 1
