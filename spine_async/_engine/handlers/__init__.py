"""Executors of the step types; each executes one attempt."""
