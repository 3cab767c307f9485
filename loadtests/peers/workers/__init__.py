"""One script a peer, run by the interpreter that has it, where this project isn't installed."""
