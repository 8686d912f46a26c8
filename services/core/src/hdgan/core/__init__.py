"""What every room shares: run model, store, artifacts, stage harness, pipeline and the command."""
