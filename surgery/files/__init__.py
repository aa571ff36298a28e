"""What is on disk: which files a checkpoint has, their headers, and tensors that stay there until asked for."""
