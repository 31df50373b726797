"""The names that settings are chosen by."""

TRAINING_STEPS = 1000
PREDICTIONS = ("epsilon", "v_prediction")  # diffusers' words for what a network predicts
PRECISIONS = ("float32", "bfloat16", "float16")
SPEEDS = ("exact", "fast", "draft")  # presets that a solver may have; exact is the row as it is
AUTO = "auto"  # in the place of a solver: the one that the task recommends for the prior
EXPLAIN_FORMATS = ("png", "pdf", "gif", "webp")  # the strip, and the animation, that explain guidance
