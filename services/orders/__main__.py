"""The orders process."""

from services.orders.service import SERVICE
from services.runtime.serve import main

main(SERVICE)
