"""Download jobs: a durable queue, transfers in parallel ranges, nothing published unverified."""
