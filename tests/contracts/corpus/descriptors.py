"""FileDescriptorSets out of the `*_pb2.py` of installed distributions.

A generated module hands its descriptor, as bytes, to `AddSerializedFile`. It is read, not imported:
modules of other versions of protobuf would refuse, and two that have the same file would collide.
"""

import ast
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Final

from google.protobuf import descriptor_pb2

from accord_checks.image import WELL_KNOWN

Files = dict[str, descriptor_pb2.FileDescriptorProto]

_ADDERS: Final = frozenset({"AddSerializedFile", "FileDescriptor"})
IMPORTED: Final = b"\xd2\xf6\x03\x02\x08\x01"
"""What `buf` adds to a file that is only imported: its field 8042, `{is_import: true}`."""


def installed(folder: Path | None = None) -> dict[str, Files]:
    """The files of each distribution that has any, by its name: of a folder, or of this Python."""
    found = distributions(path=[str(folder)]) if folder is not None else distributions()
    sets = {distribution.metadata["Name"]: _files(distribution) for distribution in found}
    return dict(sorted((name, files) for name, files in sets.items() if files))


def _files(distribution: Distribution) -> Files:
    made: Files = {}
    for path in distribution.files or ():
        if path.name.endswith("_pb2.py"):
            for file in _serialized(Path(str(distribution.locate_file(path)))):
                # Some have several versions of a file, for several versions of protobuf.
                made.setdefault(file.name, file)
    return made


def _serialized(module: Path) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    try:
        tree = ast.parse(module.read_bytes())
    except (OSError, SyntaxError):
        return
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and getattr(node.func, "attr", "") in _ADDERS):
            continue
        named = (keyword.value for keyword in node.keywords if keyword.arg == "serialized_pb")
        for given in (*node.args, *named):
            if isinstance(given, ast.Constant) and isinstance(given.value, bytes):
                file = descriptor_pb2.FileDescriptorProto.FromString(given.value)
                if not file.name.startswith(WELL_KNOWN):
                    yield file


def image(
    own: Files, others: Iterable[Files]
) -> tuple[descriptor_pb2.FileDescriptorSet, list[str]]:
    """A distribution's files with what they import, from others if need be; and what is left out.

    That is a file of which an import is nowhere, or that declares again what another has.
    """
    known: Files = {}
    for files in (own, *others):
        for name, file in files.items():
            known.setdefault(name, file)
    whole: dict[str, bool] = {}

    def complete(name: str) -> bool:
        if name not in whole:
            whole[name] = name in known and all(
                [complete(it) for it in known[name].dependency]  # noqa: C419 - each is looked at
            )
        return whole[name] or name.startswith(WELL_KNOWN)

    for name in own:
        complete(name)
    made = descriptor_pb2.FileDescriptorSet(file=_well_known())
    names: set[str] = set()
    left_out = []
    for name in (*own, *(name for name in whole if name not in own and name in known)):
        declared = _declared(known[name])
        if not whole[name] or declared & names:
            left_out.append(name)
            continue
        names |= declared
        file = made.file.add()
        file.CopyFrom(known[name])
        if name not in own:
            file.MergeFromString(IMPORTED)
    return made, left_out


def _declared(file: descriptor_pb2.FileDescriptorProto) -> set[str]:
    kinds = (file.message_type, file.enum_type, file.service, file.extension)
    return {f"{file.package}.{found.name}" for kind in kinds for found in kind}


def _well_known() -> Iterator[descriptor_pb2.FileDescriptorProto]:
    """Protobuf's own files, as this Python has them."""
    from google.protobuf import (
        any_pb2,
        api_pb2,
        duration_pb2,
        empty_pb2,
        field_mask_pb2,
        source_context_pb2,
        struct_pb2,
        timestamp_pb2,
        type_pb2,
        wrappers_pb2,
    )

    modules = (
        *(descriptor_pb2, source_context_pb2, any_pb2, type_pb2, api_pb2, duration_pb2, empty_pb2),
        *(field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2),
    )
    for module in modules:
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        yield file
