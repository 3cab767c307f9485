"""Load generators and comparisons. They use the floors below and are used by none of them."""
