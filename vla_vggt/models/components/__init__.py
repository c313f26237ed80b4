"""What a VGGT layer is made of."""
