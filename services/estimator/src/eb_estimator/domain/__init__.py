"""The estimator's rules, without I/O: what usage would cost by the same terms and the same library as the bill."""
