"""How road users drive: the laws of IDM and MOBIL, their parameters, and what they are about to do."""
