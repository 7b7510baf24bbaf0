"""Training that yields Tucker models: layers, ADMM, fine-tuning, export. Needs torch."""
