"""The worker process: claims jobs in batches and generates with torch and transformers."""
