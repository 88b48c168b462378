"""Runs the service: `python -m services.analytics`."""

from accord_runtime.process import main
from services import topology
from services.analytics.servicer import SERVICE

main(SERVICE, topology.addresses)
