"""Runs the service: `python -m services.shipping`."""

from services.runtime.serve import main
from services.shipping.service import SERVICE

main(SERVICE)
