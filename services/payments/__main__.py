"""Runs the service: `python -m services.payments`."""

from accord_runtime.process import main
from services import topology
from services.payments.servicer import SERVICE

main(SERVICE, topology.addresses)
