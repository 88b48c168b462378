"""Materialised views: kept by events, rebuilt from zero beside the one that answers, and swapped.

Each row of a view's tables belongs to a *generation*. Readers read the one that answers. A rebuild
fills the next one from the source's own record, while the view goes on; in one transaction it then
becomes the one that answers. See docs/views.md.
"""

from accord_runtime.views.store import MIGRATIONS as MIGRATIONS
from accord_runtime.views.store import Change as Change
from accord_runtime.views.store import State as State
from accord_runtime.views.store import View as View
from accord_runtime.views.views import Completeness as Completeness
from accord_runtime.views.views import Views as Views
