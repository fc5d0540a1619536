"""Searches: what is asked of one, its trials as a source of runs, their record, and what follows from it."""
