"""Fault tests break real runs on purpose: ``make faults`` runs all, the test suite a short case of each."""
