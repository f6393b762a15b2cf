"""One traffic scene: the types at the seams, and what is computed on a scene."""
