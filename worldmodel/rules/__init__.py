"""How rules drive: the equations of IDM, MOBIL and steering, who is in the way, which lanes run beside."""
