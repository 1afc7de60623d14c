"""Objects with conditional writes: the contract, retries and metering, one folder a store; `open` is the only list of stores."""
