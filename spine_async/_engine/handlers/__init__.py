"""Executors of the five step types; each executes one attempt."""
