"""int8 that keeps a model's answers: rotate, observe, choose how inputs are rounded, round."""
