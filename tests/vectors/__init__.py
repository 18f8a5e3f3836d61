"""The examples of the specification: how they are made, and that they are what the code makes and takes."""
