"""What models are asked: prompt sets, loaders of data sets, pictures, splits."""
