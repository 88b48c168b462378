"""Policies: pure decisions without I/O. Clock and random source are always passed in.

Nothing here imports gRPC; `accord.client.call` composes the policies and `accord.aio` executes what
they decide.
"""
