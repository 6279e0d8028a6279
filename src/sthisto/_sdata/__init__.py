"""SpatialData in and out: the only folder that reads its elements or writes to its tables."""
