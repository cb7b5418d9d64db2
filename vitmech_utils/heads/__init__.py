"""Reading and changing attention heads: capture, ablation, semantics."""
