"""The orders process."""

from accord_runtime.process import main
from services import topology
from services.orders.servicer import SERVICE

main(SERVICE, topology.addresses)
