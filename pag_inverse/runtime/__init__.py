"""The machine: random streams, batch size, processes, memory."""
