"""The contracts as one HTML page that opens from disk: no network, no other file.

RPCs with their policies, callers and errors, events, messages, and a picture of who calls whom.
Without JavaScript it can be read all the same; only the search and the choice of colours are gone.
"""
