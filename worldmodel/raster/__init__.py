"""The lecture's predictor: a convolutional CVAE on pictures of the traffic from above."""
