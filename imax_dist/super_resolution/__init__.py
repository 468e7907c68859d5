"""Networks that enlarge a picture: ESRGAN and its descendants here, any other by spandrel."""
