"""The command line of the shop: start it, look at it, order something."""
