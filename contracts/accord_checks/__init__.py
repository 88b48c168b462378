"""Checks of contracts: a Buf plugin, a diff of policies for reviewers, exports.

Nothing here is needed to make or to serve a call; the extra `contracts` installs what it needs.
"""
