"""Steps on a Tx that the doors of pricing share: prices, rating, re-rating, guards, periods, one-offs."""
