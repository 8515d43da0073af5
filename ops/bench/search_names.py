"""What `lookalike bench search` can measure, by name."""

CANDIDATES, WHOLE, RECORDS = "candidates", "whole", "records"
BUILD, OPEN, COLD = "build", "open", "cold"
INSERT, DELETE, WRITES = "insert", "delete", "writes"

SEARCHES = (CANDIDATES, WHOLE, RECORDS)
STAGES = (*SEARCHES, BUILD, OPEN, COLD, INSERT, DELETE, WRITES)
DEFAULT_STAGES = (*SEARCHES, BUILD, OPEN)

BLOCK = 4_096
"""Images that are made, read and, unless told otherwise, stored at a time."""

QUERIES = 1_000
"""Kept with each collection; more of them cannot be asked."""
