"""Ends a process, as a fault in native code would, when it sends mail to somebody called "pill".

Python imports this module by itself where this folder is on PYTHONPATH. Nothing of the shop is
changed: `smtplib` tells audit hooks what it is about to send.
"""

import os
import sys
from typing import Any


def _swallow(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "smtplib.send" and "TO:<pill" in str(arguments[1]):
        os._exit(139)


sys.addaudithook(_swallow)
