"""Every message type that was ever released, as it went over the wire then and goes today."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages
from typing import Any, Final

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

import accord.ops
import accord.v1
import shop
from accord.v1 import policy_pb2
from tests.contracts.compat.comparison import covers
from tools import fixtures, releases
from tools.fixtures import Contracts

for _package in (accord.v1, accord.ops, shop):
    for _module in walk_packages(_package.__path__, f"{_package.__name__}."):
        if _module.name.endswith("_pb2"):
            import_module(_module.name)

IMAGES: Final[Mapping[str, Contracts]] = {
    version: Contracts(releases.image_of(folder).read_bytes())
    for version, folder in releases.released().items()
}
FILES: Final = [
    file for folder in releases.released().values() for file in (folder / "messages").iterdir()
]
FUTURE: Final = "from the future"


def name_of(file: Path) -> str:
    """The message type of a fixture."""
    return file.stem


@dataclass(frozen=True, slots=True)
class Case:
    """One message, as bytes and as what they mean."""

    name: str
    wire: bytes
    json: Any


def read(file: Path) -> list[Case]:
    """The cases that a file keeps."""
    return [
        Case(case["case"], base64.b64decode(case["wire"], validate=True), case["json"])
        for case in json.loads(file.read_text(encoding="utf-8"))
    ]


def released(version: str, name: str) -> Message:
    """An empty message of a released class of this name."""
    return message_factory.GetMessageClass(IMAGES[version].pool.FindMessageTypeByName(name))()


def todays(name: str) -> Message:
    """An empty message of today's class of this name."""
    kind = descriptor_pool.Default().FindMessageTypeByName(name)
    return message_factory.GetMessageClass(kind)()


def unknown(message: Any) -> list[str]:
    """Where a message, or one in it, has fields that its class does not know."""
    fields: Any = UnknownFieldSet(message)  # The types know nothing of its iterator.
    found = [f"{message.DESCRIPTOR.full_name}: {field.field_number}" for field in fields]
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None:
            continue
        if kind.GetOptions().map_entry:
            value = value.values() if kind.fields_by_name["value"].message_type else ()
        for each in value if field.is_repeated else (value,):
            found += unknown(each)
    return found


@pytest.mark.parametrize("version", IMAGES)
def test_every_released_message_has_a_fixture(version: str) -> None:
    """No message type of a released image is without its fixture, and none has a case too few."""
    folder = releases.released()[version] / "messages"
    kinds = {kind.full_name: kind for kind in IMAGES[version].messages()}
    assert {file.stem for file in folder.iterdir()} == kinds.keys()
    for name, kind in kinds.items():
        names = {case.name for case in read(folder / f"{name}.json")}
        alternatives = {
            f"{oneof.name}: {f.name}" for oneof in kind.oneofs for f in oneof.fields[1:]
        }
        assert names == {"every field", FUTURE} | alternatives | (
            {"least", "most"} if kind.fields else set()
        )


@pytest.mark.parametrize("version", IMAGES)
def test_fixtures_set_every_field(version: str) -> None:
    """In the fixtures of a message type, taken together, each of its fields is sent."""
    for kind in IMAGES[version].messages():
        kept = read(releases.released()[version] / "messages" / f"{kind.full_name}.json")
        sent = {name for case in kept for name in case.json}
        assert sent == {field.name for field in kind.fields}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_released_messages_are_read_by_todays_code(file: Path) -> None:
    """Today's class finds in released bytes what was in them, and nothing that it does not know."""
    for case in read(file):
        message = todays(file.stem)
        message.ParseFromString(case.wire)
        assert fixtures.to_json(message) == case.json, case.name
        if case.name != FUTURE:
            assert unknown(message) == [], case.name


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_released_json_is_read_by_todays_code(file: Path) -> None:
    """So does it in released JSON, as grpcurl and gateways send it."""
    for case in read(file):
        if case.name != FUTURE:
            message = todays(file.stem)
            json_format.ParseDict(case.json, message)
            assert fixtures.to_json(message) == case.json, case.name


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_what_passes_through_todays_code_is_not_lost(file: Path) -> None:
    """Today's class sends on what it has read, unknown fields and enum values included."""
    version = file.parent.parent.name
    for case in read(file):
        message = todays(file.stem)
        message.ParseFromString(case.wire)
        again = released(version, file.stem)
        again.ParseFromString(message.SerializeToString())
        before = released(version, file.stem)
        before.ParseFromString(case.wire)
        assert again == before, case.name


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_todays_messages_are_read_by_released_code(file: Path) -> None:
    """A released class finds in today's bytes everything that it knows, as it is today."""
    version = file.parent.parent.name
    today = fixtures.fill(todays(file.stem))
    then = released(version, file.stem)
    then.ParseFromString(today.SerializeToString())
    # Of an enum value that is new, the released class knows the number alone.
    said = fixtures.to_json(then, IMAGES[version].pool, numbers=True)
    now = fixtures.to_json(today, numbers=True)
    assert covers(now, said)
    known = {field.name for field in then.DESCRIPTOR.fields}
    assert known & now.keys() == said.keys()


@pytest.mark.parametrize("version", IMAGES)
def test_released_policies_are_read_by_todays_vocabulary(version: str) -> None:
    """The options of contracts that were compiled with a released vocabulary mean something yet."""
    image = releases.image_of(releases.released()[version]).read_bytes()
    policies = [
        options.Extensions[extension]
        for file in descriptor_pb2.FileDescriptorSet.FromString(image).file
        for options, extension in _options(file)
        if options.HasExtension(extension)
    ]
    assert len(policies) > 50
    for policy in policies:
        assert unknown(policy) == []


def _options(file: descriptor_pb2.FileDescriptorProto) -> list[tuple[Any, Any]]:
    services = [(service.options, policy_pb2.service) for service in file.service]
    methods = [
        (method.options, policy_pb2.policy) for service in file.service for method in service.method
    ]
    events = [(message.options, policy_pb2.event) for message in file.message_type]
    return [*services, *methods, *events]


def test_a_lost_field_would_be_found() -> None:
    """A field that today's class no longer has is found as unknown, wherever it is nested."""
    order: Any = released(next(iter(IMAGES)), "shop.orders.v1.GetOrderResponse")
    order.order.MergeFromString(fixtures.future_fields())
    assert unknown(order) == [f"shop.orders.v1.Order: {fixtures.NUMBER_OF_THE_FUTURE}"] * 4


@pytest.mark.parametrize(
    ("whole", "part", "covered"),
    [
        ({"a": 1, "b": [{"c": 2, "d": 3}]}, {"b": [{"c": 2}]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": [1]}, {"a": [1, 2]}, False),
        ({"a": "1"}, {"a": 1}, False),
    ],
)
def test_covers(whole: Any, part: Any, covered: bool) -> None:
    """A message covers another when it says all of that and perhaps more."""
    assert covers(whole, part) is covered


def test_the_same_contracts_give_the_same_fixtures(tmp_path: Path) -> None:
    """Fixtures depend on nothing but the contracts: a second time they have the same bytes."""
    image = releases.image_of(next(iter(releases.released().values()))).read_bytes()
    for name in ("one", "other"):
        assert fixtures.write(image, tmp_path / name) > 100
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "other" / file.name).read_bytes()
