"""Concept specs: what they hold, where they are stored, how they are checked, edited, imported and exported."""
