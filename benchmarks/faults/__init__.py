"""Breaks runs of small projects of all six tasks, and counts what one command, or one line, brings back.

python -m benchmarks.faults [PART ...]      (as root: it mounts small file systems)

A part's counts are kept in results/faults.json beside those of the other parts. Stages run in forks of a process that
has imported them, so that a fault hits the work of a stage and not its imports; records and repro run DVC.
"""

PARTS = ("kills", "disk", "memory", "clock", "damage", "network", "records", "repro")
STAGES = ("download@corpus", "download@model", "tokenize", "teach", "train", "evaluate", "export", "report")
