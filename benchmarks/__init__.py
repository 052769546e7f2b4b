"""What llamactl is measured against, side by side in one run with the peer named."""
