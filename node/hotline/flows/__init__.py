"""One module an arrow of the data flow: a flow reads, decides (pure) and writes."""
