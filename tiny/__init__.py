"""How the embedded tiny model is made: a small procedural world, its judge, its tokenizers, its training."""
