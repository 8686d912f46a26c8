"""What hdgan tells Prometheus: every series it has, and who fills them."""
