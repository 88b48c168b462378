"""One incoming call, without I/O: what both drivers do alike."""
