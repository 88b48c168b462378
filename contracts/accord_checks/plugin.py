"""The Buf check plugin `buf-plugin-accord`.

`buf` starts it a few times for each run and speaks PluginRPC (github.com/pluginrpc): a procedure is
named by the first argument, its request is read from standard input, its response goes to standard
output. What cannot be done is an error in the response, which `buf` shows as one line.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from accord_checks import Refused, number_taken

PROTOCOL: Final = "1"

_SERVICE: Final = "buf.plugin.check.v1"
_LINT, _BREAKING = 1, 2
_INTERNAL, _INVALID_ARGUMENT = 13, 3

CATEGORIES: Final = {
    "ACCORD": "Checks that policies in the contract are complete and do not contradict each other.",
    "POLICY": "Checks that no policy, event or error changes in a way that breaks callers.",
    "POLICY_STRICT": "Checks that no policy changes in a way that breaks or may surprise callers.",
}


def main() -> int:
    """Answer one call; 0 unless the arguments are unknown."""
    arguments = [a for a in sys.argv[1:] if a not in ("--format", "binary")]
    if arguments == ["--protocol"]:
        print(PROTOCOL)
        return 0
    # Nothing below is needed to say which protocol is spoken.
    answer = _spec() if arguments == ["--spec"] else None
    if answer is None and len(arguments) == 1 and arguments[0] in _PROCEDURES:
        answer = _answer(arguments[0], sys.stdin.buffer.read())
    if answer is None:
        print(
            "accord: this is a plugin of buf: name it in buf.yaml, under `plugins`", file=sys.stderr
        )
        return 2
    sys.stdout.buffer.write(answer)
    return 0


def _spec() -> bytes:
    from accord_checks import plugin_messages

    return _bytes(plugin_messages.Spec(procedures=[{"path": path} for path in _PROCEDURES]))


def _answer(path: str, given: bytes) -> bytes:
    from google.protobuf.message import DecodeError

    from accord_checks import plugin_messages

    response = plugin_messages.Response()
    name, procedure = _PROCEDURES[path]
    try:
        request = plugin_messages.Request.FromString(given).value.value
        response.value.value = _bytes(procedure(request))
        response.value.type_url = f"type.googleapis.com/{_SERVICE}.{name}"
    except DecodeError:
        response.error.code = _INVALID_ARGUMENT
        response.error.message = "what was sent is not a request of buf, or not all of it"
    except Refused as refused:
        response.error.code = _INVALID_ARGUMENT
        response.error.message = str(refused)
    except Exception as error:  # one line for people, whatever goes wrong
        response.error.code = _INTERNAL
        response.error.message = f"a bug in buf-plugin-accord: {_where(error)}"
    return _bytes(response)


def _where(error: Exception) -> str:
    """An error with the place in our code that raised it, in one line."""
    import traceback

    said = " ".join(str(error).split())[:200]
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {said} ({frame.name}, line {frame.lineno})"


def _list_rules(request: bytes) -> Any:
    from accord_checks import plugin_messages
    from accord_checks.breaking_rules.all_rules import BREAKING_RULES
    from accord_checks.lint_rules.all_rules import LINT_RULES

    lint = [_rule(rule.id, rule.purpose, _LINT, ("ACCORD",)) for rule in LINT_RULES]
    breaking = [_rule(rule.id, rule.purpose, _BREAKING, rule.categories) for rule in BREAKING_RULES]
    return plugin_messages.ListRulesResponse(rules=[*lint, *breaking])


def _rule(id: str, purpose: str, kind: int, categories: tuple[str, ...]) -> dict[str, Any]:  # noqa: A002
    return {
        "id": id,
        "category_ids": categories,
        "default": categories != ("POLICY_STRICT",),
        "purpose": purpose,
        "type": kind,
    }


def _list_categories(request: bytes) -> Any:
    from accord_checks import plugin_messages

    found = [{"id": name, "purpose": purpose} for name, purpose in CATEGORIES.items()]
    return plugin_messages.ListCategoriesResponse(categories=found)


def _check(request: bytes) -> Any:
    from accord_checks import plugin_messages

    asked = plugin_messages.CheckRequest.FromString(request)
    return plugin_messages.CheckResponse(annotations=[*annotations(asked)])


def annotations(asked: Any) -> Iterator[dict[str, Any]]:
    """What the rules that are asked for find, in the order of files and lines."""
    from accord_checks import baseline
    from accord_checks.breaking_rules.all_rules import BREAKING_RULES
    from accord_checks.breaking_rules.compare import compare
    from accord_checks.lint_rules.all_rules import LINT_RULES

    known = baseline.known()
    wanted = set(asked.rule_ids)
    compared = any(change.id in wanted for change in BREAKING_RULES)
    now = _contracts(asked.files, compared)
    found: list[tuple[str, str, Any, Any]] = []
    for rule in LINT_RULES:
        if not wanted or rule.id in wanted:
            found += [
                (rule.id, rule.message(f), f.place, None)
                for f in rule.check(now)
                if baseline.line(rule, f) not in known
            ]
    if compared:
        then = _contracts(asked.against, compared)
        for change in compare(then, now):
            if change.rule is not None and change.rule.id in wanted and not change.accepted:
                found.append((change.rule.id, change.message, change.place, change.before))
    for id, message, place, before in sorted(found, key=lambda entry: _order(now, entry[2])):  # noqa: A001
        entry: dict[str, Any] = {"rule_id": id, "message": message}
        if place is not None:
            entry["location"] = {"file_name": place.file, "source_path": place.path}
        if before is not None:
            entry["against"] = {"file_name": before.file, "source_path": before.path}
        yield entry


def _order(contracts: Any, place: Any) -> tuple[str, int]:
    if place is None:
        return ("", 0)
    return (place.file, contracts.files[place.file].positions.line(place.path) or 0)


def _contracts(files: Iterable[Any], implied: bool) -> Any:
    from google.protobuf import descriptor_pb2
    from google.protobuf.message import DecodeError

    from accord_checks import plugin_messages
    from accord_checks.contracts import Contracts

    protos, imports = [], []
    for file in files:
        name = plugin_messages.FileName.FromString(file.descriptor).name
        try:
            protos.append(descriptor_pb2.FileDescriptorProto.FromString(file.descriptor))
        except DecodeError as error:
            raise number_taken(name) from error
        if file.is_import:
            imports.append(name)
    return Contracts(protos, imports, implied=implied)


def _bytes(message: Any) -> bytes:
    found: bytes = message.SerializeToString()
    return found


_PROCEDURES: Final[dict[str, tuple[str, Callable[[bytes], Any]]]] = {
    f"/{_SERVICE}.CheckService/Check": ("CheckResponse", _check),
    f"/{_SERVICE}.CheckService/ListRules": ("ListRulesResponse", _list_rules),
    f"/{_SERVICE}.CheckService/ListCategories": ("ListCategoriesResponse", _list_categories),
}
