"""Runs the service: `python -m services.sandbox`."""

from accord_runtime.process import main
from services import topology
from services.sandbox.servicer import SERVICE

main(SERVICE, topology.addresses)
