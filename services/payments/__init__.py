"""Money taken from and given back to cards.

It stands alone because it is the only service that talks to the card processor, and because card
data must stay out of all others. An order is charged at most once, whatever is repeated, lost or
killed: the order's row decides, and the processor is asked under a key that never changes.
"""
