"""Role 2: the authority of the membership directory. Imports nothing of the other roles."""
