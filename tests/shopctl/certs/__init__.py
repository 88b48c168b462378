"""The shop's own certificate authority."""
