"""What a label table says of a model's scales, and the pages that show it."""
