"""What goes wrong between a source and its tensors."""


class CheckpointError(Exception):
    """A checkpoint that can't be read; the message names the file or the tensor."""


class SourceError(CheckpointError):
    """A source that can't be located or fetched; the message says what to do next."""


class SourceUnreachable(SourceError):
    """A source that may well be there, but no network leads to it; nothing is wrong with it."""
