"""Contracts that are written in a test, compiled by `buf`, and judged by the rules."""

import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, duration_pb2

from accord.v1 import edge_pb2, policy_pb2
from accord_checks import image, plugin, plugin_messages
from accord_checks.breaking_rules.all_rules import BREAKING_RULES
from accord_checks.contracts import Contracts
from accord_checks.declarations import Place
from tools import contracts as tool
from tools.contracts import ROOT

VOCABULARY = ("accord/v1/edge.proto", "accord/v1/policy.proto", "buf/validate/validate.proto")

_HEADER = """syntax = "proto3";
package {package};
import "accord/v1/edge.proto";
import "accord/v1/policy.proto";
import "buf/validate/validate.proto";
"""


@dataclass(frozen=True, order=True)
class Said:
    """A finding as `buf` prints it."""

    file: str
    line: int
    rule: str
    message: str
    column: int = 0


def buf(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `buf` with its plugins in a folder."""
    path = os.pathsep.join((str(tool.SCRIPTS), os.environ.get("PATH", os.defpath)))
    return subprocess.run(
        ("buf", *arguments),
        cwd=root,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def findings(root: Path, *arguments: str) -> list[Said]:
    """What `buf lint` or `buf breaking` finds; anything else that it says fails the test."""
    done = buf(root, *arguments, "--error-format", "json")
    assert done.returncode in (0, 100), done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return sorted(
        Said(
            one.get("path", ""),
            one.get("start_line", 0),
            one["type"],
            one["message"],
            one.get("start_column", 0),
        )
        for one in found
    )


def annotated(root: Path, against: Path | None = None) -> list[Said]:
    """What the plugin answers when `buf` asks for the rules of lint or, with `against`, of changes.

    Without the half second that `buf` needs to ask.
    """
    now = image.read(str(root)).file
    request = plugin_messages.CheckRequest(files=_files(now))
    if against is not None:
        request.against.extend(_files(_baseline(against)))
        request.rule_ids.extend(change.id for change in BREAKING_RULES)
    contracts = Contracts(now)
    return sorted(
        Said(
            one["location"]["file_name"],
            contracts.files[one["location"]["file_name"]].positions.line(
                one["location"]["source_path"]
            )
            or 0,
            one["rule_id"],
            one["message"],
        )
        for one in plugin.annotations(request)
        if "location" in one
    )


@cache
def _baseline(root: Path) -> list[descriptor_pb2.FileDescriptorProto]:
    """A version before a change: compiled once, for it stays as it is."""
    return list(image.read(str(root)).file)


def _files(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> list[Any]:
    return [
        plugin_messages.CheckRequest().files.add(
            descriptor=file.SerializeToString(),
            is_import=file.package.startswith(("google.", "buf.")),
        )
        for file in files
    ]


def write(root: Path, files: Mapping[str, str], configuration: str = "version: v2\n") -> Path:
    """Write a module that may import the vocabulary."""
    for name in VOCABULARY:
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((ROOT / "protos" / name).read_text())
    for name, text in files.items():
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    (root / "buf.yaml").write_text(configuration)
    return root


def contracts(root: Path, *names: str) -> Contracts:
    """The contracts of a module, of all its files or only some with the vocabulary."""
    files = image.read(str(root)).file
    kept = [
        file
        for file in files
        if not names or file.name in names or file.name in VOCABULARY or file.package == _GOOGLE
    ]
    return Contracts(kept, [file.name for file in kept if file.name in VOCABULARY])


_GOOGLE = "google.protobuf"


def vocabulary() -> list[descriptor_pb2.FileDescriptorProto]:
    """What a contract with policies imports."""
    found = []
    for used in (descriptor_pb2, duration_pb2, policy_pb2, edge_pb2):
        copy = descriptor_pb2.FileDescriptorProto()
        used.DESCRIPTOR.CopyToProto(copy)
        found.append(copy)
    return found


def example(snippet: str, package: str) -> str:
    """A whole file of an example: a policy, RPCs, a service or messages.

    Requests and responses that it does not spell out hold an id; RPCs that it only names exist.
    """
    text = snippet.replace("example.v1", package)
    if re.search(r"^(rpc|message|service) ", text) is None:
        text = _WATCHED.format(text) if "resume" in text or "stream" in text else _RPC.format(text)
    if not re.search(r"^service ", text, re.MULTILINE) and "rpc " in text:
        rpcs, rest = _split(text)
        text = f"{_SERVICE}\n{rpcs}\n}}\n{rest}"
    return _HEADER.format(package=package) + text + _missing(text)


_RPC = """rpc GetThing(GetThingRequest) returns (GetThingResponse) {{
  option (accord.v1.policy) = {{ {} }};
}}
rpc GetPart(GetPartRequest) returns (GetPartResponse) {{}}"""
_WATCHED = """rpc WatchThing(WatchThingRequest) returns (stream WatchThingResponse) {{
  option (accord.v1.policy) = {{ {} }};
}}
message WatchThingRequest {{ int64 after_sequence = 1; }}
message WatchThingResponse {{ int64 sequence = 1; }}"""
_SERVICE = 'service ThingService {\n  option (accord.v1.service) = {owner: "team-things"};'


def _split(text: str) -> tuple[str, str]:
    """RPCs, and the messages after them."""
    at = text.find("\nmessage ")
    return (text, "") if at < 0 else (text[:at], text[at:])


def _missing(text: str) -> str:
    wanted = dict.fromkeys(re.findall(r"\b\w+(?:Request|Response)\b", text))
    return "".join(
        f"\nmessage {name} {{ string thing_id = 1 [(buf.validate.field).string.uuid = true]; }}"
        for name in wanted
        if f"message {name} " not in text
    )


def line(contracts: Contracts, place: Place | None) -> int | None:
    """The line of a place."""
    if place is None:
        return None
    return contracts.files[place.file].positions.line(place.path)
