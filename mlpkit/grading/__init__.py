"""Grading of the course assignment: its sections, and submissions run apart from the grader."""
