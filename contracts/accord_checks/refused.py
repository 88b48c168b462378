"""The one error that the command line and the plugin show to a person."""

from typing import Final

_NUMBER: Final = 51010  # not read from the vocabulary: whoever only refuses need not load it


class Refused(Exception):
    """Something that cannot be done; the message is one line that says why."""


def number_taken(where: str) -> Refused:
    """That an option of somebody else's, in `where`, has the number of Accord's."""
    return Refused(
        f"{where} has an option of its own with the number {_NUMBER}, which is Accord's: one of "
        "the two has to go"
    )
