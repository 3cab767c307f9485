"""The engines: what turns token ids into vectors, scores and streams of tokens."""
