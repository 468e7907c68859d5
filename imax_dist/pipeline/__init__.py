"""One poster, in stage order: request, plan, prompt, native, endpoint, extrapolate, decode, render."""
