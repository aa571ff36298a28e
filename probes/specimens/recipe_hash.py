"""The name of a recipe's directory in the cache."""

import json
from hashlib import sha256


def recipe_hash(*parts: object) -> str:
    """Twelve hexadecimal digits that identify what a specimen is made from, in JSON."""
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]
