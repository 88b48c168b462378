"""Runs the service: `python -m services.inventory`."""

from accord_runtime.process import main
from services import topology
from services.inventory.servicer import SERVICE

main(SERVICE, topology.addresses)
