"""What `vlsurgery push` sends to the Hub: which files, under which card, and how."""
