"""VLA-VGGT, a vision-language-action policy whose backbone is a Vision GNN Transformer."""
