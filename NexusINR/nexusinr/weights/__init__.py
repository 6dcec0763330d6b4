"""Bundled weights: one .safetensors and one .json card for each model."""
