"""How long the calls of a method may take, by what its contract states."""

import math

from accord.contract import MethodPolicy, StreamPolicy
from accord.server.timeouts import time_limits


def test_a_server_gives_a_unary_call_a_second_more() -> None:
    """The caller's own deadline ends a call; the server's watchdog comes a second later."""
    limits = time_limits(MethodPolicy("/m", timeout=5.0))
    assert limits == (6.0, math.inf, math.inf)


def test_one_response_may_wait_for_its_reader_for_30_s() -> None:
    """Where the contract states something of streams; lifetime and silence are as stated."""
    stated = StreamPolicy(max_lifetime=3600.0, idle=90.0)
    limits = time_limits(MethodPolicy("/m", server_streaming=True, stream=stated))
    assert limits == (3600.0, 90.0, 30.0)
    assert time_limits(MethodPolicy("/m", server_streaming=True)) is None
