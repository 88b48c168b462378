"""The contracts as one HTML page that opens from disk: no network, no other file.

RPCs with their policies, callers and errors, events, messages, and a picture of the neighbours of
each service. Without JavaScript there are the names of services and RPCs.
"""
