"""Drills: stores that are killed, filled up and damaged at work, and what must be left of them.

`python -m ops.drill`, or `make drill`. A *drill* is one operation, such as compaction. In each of
its *rounds* processes do it to a small store and are killed with SIGKILL; then another process,
the *judge*, opens what is left, and compares it with what the killed ones had said they did.

| module | holds |
|---|---|
| `world` | images, changes, and what a store holds after them |
| `work` | what processes do to a store until they are killed |
| `child`, `tracing` | processes that are killed at a moment, or at a system call |
| `disk` | a disk that is full |
| `judge` | what must be true of a store, whatever happened to it |
| `stores`, `migrations`, `backups`, `damage` | the drills |
| `run` | taking turns, progress, the summary |
"""
