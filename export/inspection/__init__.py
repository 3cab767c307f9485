"""A second graph of what is served, in which everything between shows."""
