"""A Kubernetes API server for tests: real HTTP, its own store, faults on demand; see `server`."""
