"""Runs the service: `python -m services.inventory`."""

from services.inventory.service import SERVICE
from services.runtime.serve import main

main(SERVICE)
