"""The deny list: serial numbers of certificates that are obeyed no longer."""

import re
from pathlib import Path
from typing import Final

from accord.identity.bundle import IdentityError

_LINE: Final = re.compile(r"\s*([0-9a-fA-F:]*)\s*(#.*)?")


class DenyList:
    """One serial number a line, in hexadecimal digits; "#" begins a comment.

    A file that is not there yet is an empty list. One that has become unreadable, or has a line
    that is none, leaves the list as it was.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.serials: frozenset[int] = frozenset()
        self._text: bytes | None = None

    def refresh(self) -> None:
        """Read the file, if it has changed. Raises IdentityError."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            if self._text is None:
                return
            raise IdentityError(f"{self.path}: the deny list has gone") from None
        except OSError as error:
            raise IdentityError(f"{self.path}: {error.strerror}") from None
        if text == self._text:
            return
        found: set[int] = set()
        for number, line in enumerate(text.decode(errors="replace").splitlines(), 1):
            match = _LINE.fullmatch(line)
            if match is None:
                raise IdentityError(
                    f"{self.path}: line {number} is no serial number: {line[:50]!r}"
                )
            if digits := match[1].replace(":", ""):
                found.add(int(digits, 16))
        self.serials, self._text = frozenset(found), text
