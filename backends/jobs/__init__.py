"""Jobs: work that outlives its request, in a durable table, run by whichever runner claims it."""
