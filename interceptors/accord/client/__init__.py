"""One outgoing call, without I/O: what both drivers do alike. `call` is the engine."""
