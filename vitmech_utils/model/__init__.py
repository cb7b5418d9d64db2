"""Pre-trained backbones, the chirp regressor, and its fine-tuning."""
