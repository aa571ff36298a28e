"""Model surgery that gives vision-language models back the refusals that adaptation cost them."""
