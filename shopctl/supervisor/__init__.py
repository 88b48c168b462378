"""Runs the shop's processes and keeps them running: what `shopctl up` starts."""
