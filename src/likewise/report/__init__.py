"""What a person reads after a run: figures, one self-contained page, a model card."""
