"""What goes wrong with training data and recipes, for a person to read."""


class TrainingError(Exception):
    """Data that can't be read or learned from, or a recipe that can't be run as asked."""
