"""The model, file by file as in the figure: two encoders, the backbone, the action head.

Shape legend, used in every comment: B samples in a batch, C cameras, P patches per image (196), V = C · P vision
tokens, L language tokens (padded on the left), S state tokens (0 or 1), T = L + V + S tokens, d width, D language width,
H steps of a chunk.
"""
