"""Exporting weights, and publishing weights and datasets on the Hugging Face Hub."""
