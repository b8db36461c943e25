"""One image at a time: file type, decoding, face alignment, crop and resize, encoding."""
