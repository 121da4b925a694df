"""Grading of the course assignment: its sections, and submissions run apart from the grader."""

# The default limits: seconds for a task, MB of memory for a process, seconds for all tasks.
TIMEOUT, MEMORY, TOTAL = 120.0, 600, 300.0
