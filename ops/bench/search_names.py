"""What `lookalike bench search` can measure, by name."""

CANDIDATES, WHOLE, BUILD, OPEN = "candidates", "whole", "build", "open"
COLD, INSERT, DELETE, WRITES = "cold", "insert", "delete", "writes"

STAGES = (CANDIDATES, WHOLE, BUILD, OPEN, COLD, INSERT, DELETE, WRITES)
DEFAULT_STAGES = (CANDIDATES, WHOLE, BUILD, OPEN)

QUERIES = 1_000
"""Kept with each collection; more of them cannot be asked."""
