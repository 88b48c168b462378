"""Runs the service: `python -m services.shipping`."""

from accord_runtime.process import main
from services.shipping.service import SERVICE

main(SERVICE)
