"""How much the service bears: where its knee is, how it grows, and how many replicas that takes."""
