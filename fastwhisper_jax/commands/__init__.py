"""The commands behind `fastwhisper`; with `cli`, the only code that sees every other part."""
