"""A merge as a person orders it (a recipe), as it is planned, and as it is carried out."""
