"""Policies that come with the harness, and the way to bring one's own."""
