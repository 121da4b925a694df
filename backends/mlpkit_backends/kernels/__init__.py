"""Compiled kernels: transcriptions of the base ops, held to them by tests."""
