"""Ranks on one or many machines: starting them, losing them, their exit codes."""
