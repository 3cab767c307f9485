"""What becomes of the service under more than it can do, and under clients that misbehave."""
