"""Drivers for gRPC with threads: the twins of `accord.aio`."""
