"""The documents are held to the code: what they list is what there is."""
