"""Prints the schema as a subgraph of Apollo federation: `python -m services.edge.graphql`."""

from services.edge.graphql.schema import schema

print(schema().as_str(), end="")
