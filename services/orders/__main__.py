"""The orders process."""

from accord_runtime.process import main
from services.orders.service import SERVICE

main(SERVICE)
