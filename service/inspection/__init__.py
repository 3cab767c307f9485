"""Looking inside a served model: what is asked, the graph that shows it, the answer."""
