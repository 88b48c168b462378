"""The shop's own certificate authority, for whoever has none: see docs/certificates.md."""
