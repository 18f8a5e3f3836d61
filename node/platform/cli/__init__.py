"""What the command lines of every role share."""
