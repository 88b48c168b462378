"""What others can read of a contract: `accord contracts export TARGET SOURCE`.

One module a target. All of them read a `Catalog`, whose policies are those that the library
enforces, and give the same bytes for the same contracts.
"""
