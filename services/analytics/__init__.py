"""Analytics: what many orders are in sum. It reads events, and nothing waits for it."""
