"""One YAML file a prior: its kind, its data, its weights and where they come from."""
