"""The command ``imax``: one file per command. Nothing heavy is imported before one runs."""
