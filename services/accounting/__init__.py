"""Accounting: the ledger, by double entry, from what payments and orders say has happened."""
