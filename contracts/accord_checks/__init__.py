"""Checks of contracts: a Buf plugin, a diff of policies for reviewers, exports.

Nothing here is needed to make or to serve a call. What is in this file loads nothing else.
"""

from typing import Final

_NUMBERS: Final = (
    "51010 or 51011"  # not read from the vocabulary: whoever only refuses need not load it
)


class Refused(Exception):
    """Something that cannot be done; the message is one line that says why.

    The one error that the command line and the plugin show to a person.
    """


def number_taken(where: str) -> Refused:
    """That an option of somebody else's, in `where`, has the number of Accord's."""
    return Refused(
        f"{where} has an option of its own with the number {_NUMBERS}, which is Accord's: one of "
        "the two has to go"
    )
