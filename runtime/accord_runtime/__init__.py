"""What every service shares: database, work, outbox, settings and start-up."""
