"""Benchmarks: what the parts cost, and what a user waits for."""
