"""`--track`: numbers of a result to an experiment tracker: rates, gains, coefficients. Never a prompt or completion."""
