"""Runs the service: `python -m services.notifications`."""

from services.notifications.service import SERVICE
from services.runtime.serve import main

main(SERVICE)
