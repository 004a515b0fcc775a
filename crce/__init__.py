"""CRCE: erase a concept and its other names from a text-to-image model, and keep its neighbours."""

__version__ = "0.1.0"
