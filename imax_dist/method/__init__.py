"""The paper as pure functions of tensors and numbers: I-Max, arXiv 2410.07536v2.

Time is ``sigma``: 1 is noise, 0 the image (the paper's t is 1 - sigma). The network predicts
``velocity`` = noise - image. METHOD.md maps each equation to its file.
"""
