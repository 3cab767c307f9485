"""Progress that nobody reads."""


def silent(what: str, share: float) -> None:
    """Takes what `export.pipeline.export` reports."""
