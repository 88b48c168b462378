"""Events: the record, its publication to JetStream, and the inbox of other services' events."""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Later(ModuleType):
    """A module that is loaded when something of it is first asked for."""

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


# nats-py imports aiohttp for brokers behind a WebSocket: a fifth of what the start of a service
# costs. (The LazyLoader of importlib will not do: in 3.11 the next `import` loads the module.)
if "aiohttp" not in sys.modules:
    sys.modules["aiohttp"] = _Later("aiohttp")
    import_module("nats.aio.transport")
    del sys.modules["aiohttp"]
