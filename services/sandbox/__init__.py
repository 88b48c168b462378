"""The outside world, for development and tests: a card processor, a carrier and a mail server.

It is a process of its own, with a ledger of its own, so that what the shop believes can be
compared with what really happened. It misbehaves on command.
"""
