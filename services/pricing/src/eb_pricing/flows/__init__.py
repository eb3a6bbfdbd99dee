"""Steps on a Tx that the doors of pricing share: rating, guards, periods, one-off charges."""
