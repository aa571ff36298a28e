"""Chat models in memory: loading, chat templates, batches."""
