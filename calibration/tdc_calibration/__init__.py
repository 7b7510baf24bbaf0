"""What is measured from data: input readers, activation statistics, FP16 and INT8 rewriting."""
