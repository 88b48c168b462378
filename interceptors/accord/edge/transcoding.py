"""The request of an RPC, of the path, the query and the body of one of HTTP.

It is protobuf's own mapping (proto3 JSON), taken strictly: what says something that would be
dropped or guessed is refused, with the field that it is about. Source: ProtoJSON.
"""

import json
import re
from collections.abc import Sequence
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from accord.errors import InvalidArgument
from accord.interfaces import FieldViolation

MAX_PARAMETERS: Final = 200
"""Of a query."""

_TEXTS: Final = frozenset(
    {f"google.protobuf.{name}" for name in ("Timestamp", "Duration", "FieldMask")}
    | {f"google.protobuf.{kind}Value" for kind in (
        "Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")}
)  # fmt: skip
"""Messages that are written as one text."""

_OUTER: Final = re.compile(r"Failed to parse (\S{1,100}) field: ")
_UNKNOWN: Final = re.compile(r'has no field named "(.{1,100}?)" at "')
_TWICE: Final = re.compile(r'should not have multiple "(\w{1,100})"')
_UNDERSCORE: Final = re.compile("_(.?)")


class Transcoder:
    """Makes the requests of one RPC."""

    def __init__(self, request: type[Message], path_fields: Sequence[str]) -> None:
        """`path_fields`: fields of the request that the path gives."""
        self._request = request
        self._descriptor = request.DESCRIPTOR
        self._fields: list[Any] = [self._descriptor.fields_by_name[name] for name in path_fields]
        self._names = tuple(path_fields)
        self._plain = all(each.type == FieldDescriptor.TYPE_STRING for each in self._fields)

    def request(self, values: Sequence[str], query: str, body: bytes | None) -> Message:
        """The request of an RPC. Raises InvalidArgument, with what is wrong with which field.

        Args:
            values: those of the path's fields.
            query: percent-encoded.
            body: JSON, or nothing at all; None for a verb that has none, whose fields the query
                has.
        """
        if body is None:
            if not query and self._plain:
                return self._request(**dict(zip(self._names, values, strict=True)))
            given = self._from_query(query)
        else:
            if query:
                _refuse(
                    parse_qsl(query, keep_blank_values=True)[:1][0][0], "has no place in the query"
                )
            given = _object(body) if body.strip() else {}
        for field, text in zip(self._fields, values, strict=True):
            stated, value = given.pop(field.json_name, None), _value(field, text)
            stated = given.pop(field.name, stated)
            if stated is not None and stated != value and str(stated) != text:
                _refuse(field.json_name, "is another one in the path")
            given[field.name] = value
        return _parse(given, self._request())

    def _from_query(self, query: str) -> dict[str, Any]:
        try:
            pairs = parse_qsl(
                query, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
            )
        except UnicodeDecodeError:
            _refuse("", "the query is not UTF-8")
        except ValueError:
            _refuse("", f"the query has more than {MAX_PARAMETERS} parameters")
        given: dict[str, Any] = {}
        for name, text in pairs:
            *path, last = name.split(".")
            here, descriptor = given, self._descriptor
            for part in path:
                field = _field(descriptor, part, name)
                if field.message_type is None or field.is_repeated:
                    _refuse(name, "has no fields")
                here, descriptor = here.setdefault(field.name, {}), field.message_type
                if not isinstance(here, dict):
                    _refuse(name, "is given twice")
            field = _field(descriptor, last, name)
            value = _value(field, text, name)
            if field.is_repeated:
                here.setdefault(field.name, []).append(value)
            elif here.setdefault(field.name, value) is not value:
                _refuse(name, "is given twice")
        return given


def _field(descriptor: Any, part: str, name: str) -> Any:  # protobuf's, of two types
    found = descriptor.fields_by_name.get(part) or descriptor.fields_by_camelcase_name.get(part)
    if found is None:
        _refuse(name, "is no field of the request")
    return found


def _value(field: Any, text: str, name: str = "") -> Any:  # as in JSON
    """The value in JSON of a field that is given as a text."""
    kind = field.message_type
    if kind is not None:
        if kind.full_name not in _TEXTS:
            _refuse(name or field.json_name, "cannot be given as a text")
        field = kind.fields_by_name.get("value", field)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if text not in ("true", "false"):
            _refuse(name or field.json_name, "is neither true nor false")
        return text == "true"
    return text  # numbers may be written as texts in proto3 JSON


def _object(body: bytes) -> dict[str, Any]:
    """The object that a JSON text is."""
    try:
        found = _decoder.decode(body.decode())
    except UnicodeDecodeError:
        _refuse("", "the body is not UTF-8", "INVALID_JSON")
    except json.JSONDecodeError as error:
        _refuse("", f"{error.msg}: line {error.lineno}, column {error.colno}", "INVALID_JSON")
    except RecursionError:
        _refuse("", "the body is nested too deeply", "INVALID_JSON")
    except ValueError as error:  # an integer of thousands of digits
        _refuse("", str(error), "INVALID_JSON")
    if not isinstance(found, dict):
        _refuse("", "the body is no JSON object", "INVALID_JSON")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; refused where a key is there twice, or a field under both of its names."""
    found, names = dict(pairs), set[str]()
    if len(found) == len(pairs) and not any("_" in key for key in found):
        return found
    for key, _ in pairs:
        name = _UNDERSCORE.sub(lambda after: after[1].upper(), key)
        if name in names:
            _refuse(key, "is given twice", "INVALID_JSON")
        names.add(name)
    return found


def _constant(text: str) -> NoReturn:
    _refuse("", f"{text} is no JSON", "INVALID_JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        _refuse("", f"{text[:20]} is too large for a number", "INVALID_JSON")
    return number


_decoder: Final = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite
)


def _parse(given: dict[str, Any], message: Message) -> Message:
    try:
        return json_format.ParseDict(given, message)
    except json_format.ParseError as error:
        field, problem = _where(str(error), message.DESCRIPTOR.name)
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        _refuse(field, "is of a wrong type" if isinstance(cause, TypeError) else problem)
    except Exception:  # of whatever has another type than json_format expects
        _refuse("", "the request has a field of a wrong type")


def _where(text: str, root: str) -> tuple[str, str]:
    """The path of the field that an error of json_format is about, and what is wrong with it."""
    outer: list[str] = []
    while (found := _OUTER.match(text)) is not None:
        outer.append(found[1])
        text = text[found.end() :]
    field = ".".join(outer)
    placed = re.findall(rf' at "?{root}((?:\.\w+|\[[^\]\s]*\])+)', text)
    if placed and len(placed[-1]) > len(field):
        field = placed[-1][1:]
    text = re.sub(rf' at "?{root}[^\s"]*"?\.*', "", text.partition("\n")[0])
    if (unknown := _UNKNOWN.search(f'{text} at "')) is not None:
        return f"{field}.{unknown[1]}".strip("."), "is no field of the request"
    if (twice := _TWICE.search(text)) is not None:
        return f"{field}.{twice[1]}".strip("."), "is given twice"
    return field, text.rstrip(".") or "is wrong"


def _refuse(field: str, problem: str, reason: str = "INVALID_REQUEST") -> NoReturn:
    # What came in may hold halves of surrogates, which no message can.
    field, problem = (text.encode(errors="replace").decode() for text in (field, problem))
    raise InvalidArgument(reason, FieldViolation(field, problem))
