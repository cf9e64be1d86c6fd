"""The post-processor: accumulators into codes, a word of all lanes a cycle."""
