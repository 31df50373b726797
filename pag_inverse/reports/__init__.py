"""Figures, tables and pages from plain data; nothing here computes a restoration or reads a run's folder."""
