"""Writes a model for other programs: safetensors, ONNX, torch.export, a Hugging Face Space; and codes of images.

Import its files directly: each needs other extras.
"""
