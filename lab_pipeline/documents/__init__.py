"""Documents that knowledge leaves refer to: fetching them safely and cutting them into passages."""
