"""Turns DatasetRuns into Kubernetes Jobs, and says how they fare."""
