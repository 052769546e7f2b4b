"""GGUF models: their names, which files a tag means, and the caches that they lie in."""
