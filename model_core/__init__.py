"""The Transformer from scratch: one definition to train, check, export and look inside."""
