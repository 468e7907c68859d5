"""What this machine reaches, measured."""
