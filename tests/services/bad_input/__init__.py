"""What test_bad_input.py is made of: the shop's contract, a way to call it wrongly, and the table."""
