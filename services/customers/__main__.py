"""Runs the service: `python -m services.customers`."""

from accord_runtime.process import main
from services import topology
from services.customers.servicer import SERVICE

main(SERVICE, topology.addresses)
