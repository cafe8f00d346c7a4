//! Sequences of token ids through the model.
