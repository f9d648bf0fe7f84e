"""How tokens leave a model: hooks, evidence, validation, and the pipeline from images to answers."""
