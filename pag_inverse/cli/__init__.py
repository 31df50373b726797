"""Command lines: one module a command; each parses, wires and calls."""
