"""The stage that writes the generator's features of annotated candidates as shards."""
