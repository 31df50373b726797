"""Command lines: one module a command; each parses, wires and calls."""

from pag_inverse.runtime.terminal import quiet_interruptions

quiet_interruptions()  # before anything that takes long to import

from pag_inverse.runtime.allocation import ask_for_huge_pages  # noqa: E402

ask_for_huge_pages()
