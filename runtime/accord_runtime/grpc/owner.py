"""What belongs to an end user: another one is not told that it exists.

For handlers of calls that may be made for a user (`accord.current().user`). Calls without a user,
of services, sagas and operators, see everything that their contract allows.
"""

from typing import Final

import accord
from accord import NotFound, Resource

STAFF: Final = "operator"
"""Role of users who act for all others; everybody else has what is theirs, and nothing more."""


def only() -> str | None:
    """Id of the user whose things alone this call may touch; None: those of all."""
    call = accord.current()
    user = None if call is None else call.user
    return None if user is None or STAFF in user.roles else user.id


def may_touch(owner: str) -> bool:
    """Whether this call may touch what belongs to a user."""
    return only() in (None, owner)


def check(owner: str, what: Resource) -> None:
    """Raise NotFound for what is another user's, as if it were not there.

    Where the owner is not known, "" is nobody's.
    """
    if not may_touch(owner):
        raise NotFound(resource=what)
