"""Grading of the course assignment: its sections, and submissions run apart from the grader."""

# The default limits: seconds for a task, MB of memory for a process, seconds for all tasks.
TIMEOUT, MEMORY, TOTAL = 120.0, 600, 300.0
# MB below which a right solution can't train TinyNet: four arrays of its parameters' size, 72 MB
# each, beside Python, NumPy and the pictures.
LEAST_MEMORY = 500
