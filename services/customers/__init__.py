"""Customers: who orders, and where mail and parcels go. The smallest service; copy it."""
