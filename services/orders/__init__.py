"""Orders: takes orders and sees them through, by an orchestrated saga.

`domain` folds events into an order and decides; `store` keeps both; `steps` is
the saga; `watching` feeds the streams; `servicer` translates.
"""
