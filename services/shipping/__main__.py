"""Runs the service: `python -m services.shipping`."""

from accord_runtime.process import main
from services import topology
from services.shipping.servicer import SERVICE

main(SERVICE, topology.addresses)
