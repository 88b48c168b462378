"""The services of the sample shop."""

from importlib import metadata

__version__ = metadata.version("accord-shop")
