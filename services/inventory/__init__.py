"""Inventory: products, their prices and their stock.

A reservation is decided in one transaction, all lines or none, whoever sells. There is one per
order, for ever: reserved, then released or committed. An order that released before it reserved
leaves a released reservation behind, so that the late request cannot take stock any more.
"""
