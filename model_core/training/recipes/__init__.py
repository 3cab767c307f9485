"""What can be learned: a file a recipe, each a `Task` for the loop."""
