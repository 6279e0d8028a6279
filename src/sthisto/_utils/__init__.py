"""What every folder may use: settings, argument checks, the logger, files, digests."""
