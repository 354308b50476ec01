"""Recipes: Python decides, the model only answers leaf calls."""
