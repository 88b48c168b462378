"""Runs the service: `python -m services.sandbox`."""

from services.runtime.serve import main
from services.sandbox.service import SERVICE

main(SERVICE)
