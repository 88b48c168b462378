"""What test_bad_input.py is made of: the contracts, a client for bad calls, and the tables."""
