"""The services of the sample shop and the runtime they share."""
