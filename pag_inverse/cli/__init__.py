"""Command lines: one module a command; each parses, wires and calls."""

from pag_inverse.runtime.allocation import ask_for_huge_pages

ask_for_huge_pages()
