"""Runs the episodes of a plan: workers, batching, retries, progress."""
