"""Who this process is: a certificate of mutual TLS, read from files that others renew.

Needs the extra `accord[identity]`.
"""

from accord.identity.bundle import Bundle, IdentityError
from accord.identity.identity import LAYOUTS, Identity

__all__ = ["LAYOUTS", "Bundle", "Identity", "IdentityError"]
