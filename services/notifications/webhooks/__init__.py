"""Webhooks: events of orders, sent to whoever has asked for them."""
