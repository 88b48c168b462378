"""Events: the record, its publication to JetStream, and the inbox of other services' events."""
