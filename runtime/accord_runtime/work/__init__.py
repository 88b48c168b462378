"""Background work: one durable executor over one table."""
