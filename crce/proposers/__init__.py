"""Proposers of corefs and retains: a language model, or a bundled lexicon if none is connected."""
