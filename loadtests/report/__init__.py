"""What becomes of the rows of a run: figures (JSON), the rows themselves (CSV), and one page."""
