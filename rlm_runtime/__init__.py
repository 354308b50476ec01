"""A local-inference runtime for Recursive Language Models."""
