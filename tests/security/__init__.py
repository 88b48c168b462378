"""The whole shop with certificates, as real processes."""
