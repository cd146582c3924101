"""From a trained model to labels."""
