"""Fault drills on the real commands: ``make drill`` runs all, the test suite a short case of each."""
