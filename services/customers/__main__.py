"""Runs the service: `python -m services.customers`."""

from services.customers.service import SERVICE
from services.runtime.serve import main

main(SERVICE)
