"""GraphQL over the RPCs of the shop: one query joins orders, customers, products and shipments."""

from services.edge.graphql.app import graphql_app as graphql_app
