"""Whatever a policy says, the rules answer: policies made up at random, a few hundred of them."""

import random
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf import descriptor as pb
from google.protobuf import descriptor_pb2, duration_pb2

from accord.v1 import edge_pb2, policy_pb2
from accord_checks import Refused, image
from accord_checks.breaking_rules.compare import compare
from accord_checks.contracts import Contracts
from accord_checks.lint_rules import calls
from accord_checks.lint_rules.all_rules import LINT_RULES
from tests.contracts import written_contracts
from tools.contracts import RELEASED, ROOT

_WORDS: Final = (
    "",
    " ",
    "a",
    "*",
    "id",
    "nested.id",
    "request.id",
    "response.nested.id",
    "request.",
    "t.v1.S/M0",
    "t.v1.S/M1",
    "t.v1.S/M2",
    "t.v1.S/Gone",
    "/t.v1.S/M0",
    "UPPER_CASE",
    "a.b.c",
    "/v1/{id}",
    "/v1/{nested}:a",
    "\u00fc\n{}",
)
_FILE: Final = "t.proto"


def fill(message: Any, chance: random.Random) -> None:
    """Set about half of all fields to something, valid or not."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() < 0.5:
            continue
        if field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(chance.randrange(4)):
                if field.message_type is not None:
                    fill(values.add(), chance)
                else:
                    values.append(_value(field, chance))
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            if field.message_type.full_name == duration_pb2.Duration.DESCRIPTOR.full_name:
                inner.seconds = chance.choice((-1, 0, 1, 5, 3600, 10**12))
                inner.nanos = chance.choice((-1, 0, 1, 10**8))
            else:
                fill(inner, chance)
        else:
            setattr(message, field.name, _value(field, chance))


def _value(field: pb.FieldDescriptor, chance: random.Random) -> object:
    kinds = pb.FieldDescriptor
    if field.type == kinds.TYPE_STRING:
        return chance.choice(_WORDS)
    if field.type == kinds.TYPE_DOUBLE:
        return chance.choice((-1.0, 0.0, 50.0, float("nan"), float("inf")))
    return chance.choice((0, 1, 2, 3, 14, 99, 2**31 - 1))


def contracts(chance: random.Random) -> Contracts:
    """A service, three RPCs of any shape and two events, with made up options."""
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package="t.v1", syntax="proto3")
    file.dependency.extend((edge_pb2.DESCRIPTOR.name, policy_pb2.DESCRIPTOR.name))
    for name in ("Request", "Response", "Nested"):
        message = file.message_type.add(name=name)
        message.field.add(name="id", number=1, type="TYPE_INT64", label="LABEL_OPTIONAL")
        message.field.add(
            name="nested",
            number=2,
            type="TYPE_MESSAGE",
            type_name=".t.v1.Nested",
            label=chance.choice(("LABEL_OPTIONAL", "LABEL_REPEATED")),
        )
        if chance.random() < 0.5:
            fill(message.options.Extensions[policy_pb2.event], chance)
    service = file.service.add(name="S")
    if chance.random() < 0.5:
        fill(service.options.Extensions[policy_pb2.service], chance)
    for number in range(chance.randrange(4)):
        method = service.method.add(
            name=f"M{number}",
            input_type=".t.v1.Request",
            output_type=".t.v1.Response",
            client_streaming=chance.random() < 0.3,
            server_streaming=chance.random() < 0.3,
        )
        method.options.idempotency_level = chance.choice(
            descriptor_pb2.MethodOptions.IdempotencyLevel.values()
        )
        if chance.random() < 0.8:
            fill(method.options.Extensions[policy_pb2.policy], chance)
        if chance.random() < 0.5:
            fill(method.options.Extensions[edge_pb2.edge], chance)
    return Contracts([file, *written_contracts.vocabulary()])


def test_a_chain_of_a_thousand_calls() -> None:
    """However deep calls go, from file to file, each one too deep is found in a line of its own."""
    count, files = 1000, []
    for number in range(count):
        # The last of the chain comes first.
        file = descriptor_pb2.FileDescriptorProto(
            name=f"{count - number:04}.proto", package=f"t{number}", syntax="proto3"
        )
        file.dependency.append(policy_pb2.DESCRIPTOR.name)
        if number + 1 < count:
            file.dependency.append(f"{count - number - 1:04}.proto")
        file.message_type.add(name="M")
        kind = f".t{number}.M"
        method = file.service.add(name="S").method.add(
            name="Get", input_type=kind, output_type=kind
        )
        call = method.options.Extensions[policy_pb2.policy].calls.add(method=f"t{number + 1}.S/Get")
        call.timeout.seconds = 1
        files.append(file)
    found = Contracts([*files, *written_contracts.vocabulary()])
    messages = [calls.depth.message(finding) for finding in calls.depth.check(found)]
    assert len(messages) == count - 3
    assert found.calls is found.calls  # measured once for all rules
    assert max(map(len, messages)) < 300


def test_a_damaged_image_is_refused_or_read(tmp_path: Path) -> None:
    """Whatever a few wrong bytes make of an image: one clear line, or findings, never a trace."""
    chance = random.Random(1)
    released = (ROOT / RELEASED / "0.1.0.binpb").read_bytes()
    damaged, said = tmp_path / "damaged.binpb", []
    refused = 0
    for _ in range(60):
        content = bytearray(released)
        for _ in range(chance.choice((1, 3, 10))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        damaged.write_bytes(content)
        try:
            now = Contracts(image.read(str(damaged)).file)
        except Refused as refusal:
            refused += 1
            said.append(str(refusal))
            continue
        said += [rule.message(finding) for rule in LINT_RULES for finding in rule.check(now)]
    assert 0 < refused < 60
    assert all("\n" not in line for line in said)


@pytest.mark.parametrize("seed", range(8))
def test_any_policy_is_judged(seed: int) -> None:
    """No rule fails on any policy, alone or compared; every finding is one line with a place."""
    chance = random.Random(seed)
    then = contracts(chance)
    for _ in range(40):
        now = contracts(chance)
        for rule in LINT_RULES:
            for finding in rule.check(now):
                assert finding.place.file == _FILE
                assert "\n" not in rule.message(finding)
        for change in compare(then, now):
            assert change.place is not None or change.before is not None
            assert "\n" not in change.message
        assert list(compare(now, now)) == []
        then = now
