"""Damaged and invented files for everything that reads one; run in a process of its own by the fuzz tests."""
