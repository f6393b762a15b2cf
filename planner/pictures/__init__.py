"""A policy that sees pictures, trained by backpropagation through pictures that a raster predictor imagines."""
