"""Attention heads of fine-tuned vision transformers: data, model, interventions and reports of the vitmech book."""

__version__ = "0.1.0"
