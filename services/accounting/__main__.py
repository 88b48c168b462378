"""Runs the service: `python -m services.accounting`."""

from accord_runtime.process import main
from services import topology
from services.accounting.servicer import SERVICE

main(SERVICE, topology.addresses)
