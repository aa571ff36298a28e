"""From an order to bytes: what is asked of each tensor, its models read together, its pieces made."""
