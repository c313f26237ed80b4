"""What came out: records, traces, statistics, summaries."""
