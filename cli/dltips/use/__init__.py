"""What a trained net is for: load it, evaluate it on the test split, predict new files; pictures of samples."""
