"""Parcels and the carrier.

It stands alone because a booked parcel cannot be taken back by a database transaction, and
carriers come and go. An order has at most one parcel: the order's row decides, and the carrier is
asked under a key that never changes.
"""
