"""Runs the service: `python -m services.notifications`."""

from accord_runtime.process import main
from services import topology
from services.notifications.servicer import SERVICE

main(SERVICE, topology.addresses)
