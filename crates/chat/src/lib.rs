//! Messages to token ids and back: tokenizer, turn format, tool calls.
