"""Public data as training data: a file a source, each giving the parts of a corpus."""
