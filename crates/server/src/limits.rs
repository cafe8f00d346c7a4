//! How much one request may ask for. Each number is an option of `k2 serve`, and each reader of a field checks its own.

/// Largest values of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Messages of a conversation.
    pub messages: usize,
    /// Tools declared.
    pub tools: usize,
    /// Bytes of one JSON schema: a tool's parameters or a response format.
    pub schema_bytes: usize,
    /// Stop strings.
    pub stops: usize,
    /// Answers to one prompt.
    pub n: usize,
    /// Alternatives listed beside each token.
    pub top_logprobs: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            body_bytes: 32 << 20,
            messages: 10_000,
            tools: 512,
            schema_bytes: 120_000, // what Moonshot's own validator (walle) takes
            stops: 16,
            n: 8,
            top_logprobs: 20, // OpenAI's
        }
    }
}
