"""Run built artifacts."""
