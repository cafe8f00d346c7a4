//! Messages to token ids and back: tokenizer, turn format, tool calls.
//!
//! The only crate of the project that knows text. Downwards it speaks token ids (the engine maps
//! ids to ids), upwards it speaks OpenAI's message shapes. Three roads lead through it:
//!
//! - text → ids: [`Tokenizer::encode`] = [`long_text`] cuts → [`special`] tokens cut out →
//!   [`pre_tokenizer`] pieces → [`byte_pair`] merges over a [`vocabulary`];
//! - messages → ids: [`normalize`](normalize::normalize) → [`render`](render::render) in the
//!   turn format of a [`Template`] → [`Rendered::ids`], where user text never becomes a control token;
//! - ids → message: [`ToolCallParser`] = [`detokenizer`] → [`stop`] strings → markers →
//!   reasoning split → tool calls, as a stream of [`Delta`]s that any chunking concatenates to the
//!   same [`Reply`].
//!
//! And one leads along: tools and schemas → [`grammar`] → the ids that may come next, so that an answer can be
//! read the last way without fail. [`mfjs`] says which schemas Moonshot's platform takes.
//!
//! What is left out: Jinja and any other code from a model folder, network access, vision.

pub mod byte_pair;
pub mod cache;
pub mod detokenizer;
pub mod gguf_vocabulary;
pub mod grammar;
pub mod json;
pub mod long_text;
pub mod message;
pub mod mfjs;
pub mod normalize;
pub mod pre_tokenizer;
pub mod python_json;
pub mod render;
pub mod special;
pub mod stop;
pub mod template;
pub mod tiktoken;
pub mod tokenizer;
pub mod tool_calls;
pub mod turns;
pub mod vocabulary;

pub use detokenizer::Detokenizer;
pub use gguf_vocabulary::GgufTokens;
pub use grammar::{AnswerGrammar, GrammarCompiler, GrammarError};
pub use json::Json;
pub use message::{Content, Message, Role, Tool, ToolCall};
pub use normalize::normalize;
pub use render::{RenderOptions, Rendered, render};
pub use stop::StopMatcher;
pub use template::Template;
pub use tokenizer::{Tokenizer, TokenizerError};
pub use tool_calls::{Delta, EndReason, FinishReason, ParserOptions, Reply, ToolCallParser};
pub use turns::Turns;
