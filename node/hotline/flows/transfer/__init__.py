"""The flow that moves items in custody on to another hotline, and takes them back."""
