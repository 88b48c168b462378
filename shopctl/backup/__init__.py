"""Databases of services, copied into one archive while they are used, and put back."""
