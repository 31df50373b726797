"""One YAML file a task: its operator, its noise and the rows of the tables."""
