"""The console: the mesh as whoever runs it sees it in a browser, and acts on it. See README.md."""
