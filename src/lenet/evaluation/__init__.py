"""From weights to answers, errors, confidence and robustness; the recogniser that is packaged as a model."""
