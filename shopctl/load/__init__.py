"""Calls at a rate that does not depend on how fast they are answered: see README.md."""
