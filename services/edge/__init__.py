"""The edge: the shop as whoever is outside of the mesh reaches it. See README.md."""
