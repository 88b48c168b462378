"""What the operator of a process sees and changes: an RPC service, and gauges for metrics."""
