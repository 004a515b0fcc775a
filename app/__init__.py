"""The screens of CRCE Studio. Gradio only: whatever needs torch is asked of the worker."""
