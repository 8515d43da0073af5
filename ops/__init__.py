"""Command line, deployment, benchmarks, drills and set-up."""
