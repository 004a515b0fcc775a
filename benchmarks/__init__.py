"""Measurements of speed: plain scripts that print what they measured, on which processor, and how often."""
