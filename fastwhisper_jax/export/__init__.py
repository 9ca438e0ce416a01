"""Hugging Face in and out: weights, configs, tokenizer files and the model card."""
