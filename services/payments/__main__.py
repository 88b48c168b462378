"""Runs the service: `python -m services.payments`."""

from services.payments.service import SERVICE
from services.runtime.serve import main

main(SERVICE)
