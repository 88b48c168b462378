"""Small real processes and helpers for the tests of the command line."""
