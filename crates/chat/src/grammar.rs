//! Answers that are right by construction: tools, choices and schemas become the set of token ids that may come
//! next.
//!
//! A [`GrammarCompiler`] belongs to a tokenizer and is built once. It turns what a request [`Wanted`] into an
//! [`AnswerGrammar`], of which each answer gets a [`Progress`] of its own. The engine of the masks is llguidance
//! (github.com/guidance-ai/llguidance); what is ours is the turn format around it ([`lark`]), the reading of
//! schemas ([`schema`]), how much of them there may be ([`bounds`]), and where in an answer the grammar begins
//! ([`progress`]).
//!
//! Schemas of tools are compiled with their keys in the order in which the model reads them in its prompt, since
//! a grammar fixes the order of properties, and objects have no others than the declared ones unless their schema speaks
//! of others. Blanks between JSON's tokens are optional, newlines and tabs are not allowed there. A pattern that the
//! library cannot use (it has no look-around) refuses a strict schema; those that are not strict then go without
//! their patterns.

pub mod bounds;
pub mod lark;
pub mod progress;
pub mod schema;
mod stack;

use std::sync::{Arc, Mutex, PoisonError};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

use crate::cache::SharedCache;
use crate::message::Tool;
use crate::mfjs::Violation;
use crate::template::Form;
use crate::tokenizer::Tokenizer;
use lark::MarkerIds;
use progress::Rules;
pub use progress::{Progress, may_come};
use schema::Schema;

/// Most bytes of all schemas of a request together.
pub const MAX_SCHEMA_BYTES: usize = 1 << 20;

/// Bytes that compiled grammars may take, as estimated.
const MAX_CACHE_BYTES: usize = 256 << 20;

/// Longer tokens never come under a grammar: a limit of the library's tree of tokens.
const MAX_TOKEN_BYTES: usize = 1000;

/// Most nodes of the library's tree of tokens.
const MAX_TREE_NODES: usize = 4_000_000;

/// Bounds of compiling a grammar and of computing a mask: fuel, not time, so that they are the same everywhere.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 2000,
    initial_lexer_fuel: 1_000_000, // about 20 ms
    step_lexer_fuel: 200_000,      // about 15 ms
    step_max_items: 50_000,
    max_lexer_states: 50_000, // 1-2 KB each
    max_grammar_size: 500_000,
    precompute_large_lexemes: true,
    verbose_errors: false,
};

/// What a request asks of its answer.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Tools that may be called.
    pub calls: Option<Calls<'a>>,
    /// What may come instead of calls.
    pub content: ContentForm<'a>,
    /// Whether reasoning comes first; it is free.
    pub reasoning: Reasoning,
}

/// How tools may be called.
#[derive(Clone, Copy, Debug)]
pub struct Calls<'a> {
    /// The tools of the request.
    pub tools: &'a [Tool],
    /// The place of the one that may be called, if it is not all.
    pub only: Option<usize>,
    /// Whether one answer may call several times.
    pub parallel: bool,
    /// Whether the model reads the tools with sorted keys.
    pub sorted: bool,
}

/// The content of an answer.
#[derive(Clone, Copy, Debug)]
pub enum ContentForm<'a> {
    /// Any text.
    Free,
    /// There is none: tools must be called.
    Nothing,
    /// JSON of this schema, its properties in the schema's order. `strict`: the schema has to be of Moonshot's
    /// subset.
    Json {
        /// The schema.
        schema: &'a crate::Json,
        /// Whether the schema is checked.
        strict: bool,
    },
}

/// Whether an answer begins with reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reasoning {
    /// It does not.
    Never,
    /// It may, with `<think>`.
    MayOpen,
    /// The prompt has opened it.
    Opened,
}

impl Reasoning {
    /// That of an answer in this turn format; `thinking` is what its prompt asks for.
    pub fn of(form: &Form, thinking: bool) -> Reasoning {
        match (form.thinking, form.prompts_thinking, thinking) {
            (true, true, true) => Reasoning::Opened,
            (true, false, _) => Reasoning::MayOpen,
            _ => Reasoning::Never,
        }
    }
}

/// Why there is no grammar.
#[derive(Debug, thiserror::Error)]
pub enum GrammarError {
    /// A strict schema is outside of Moonshot's subset.
    #[error("{param}{}: the schema is not of Moonshot's JSON schema (MFJS), which `strict` asks for: {violation}", of(.name))]
    NotMfjs {
        /// The schema's place in the request.
        param: String,
        /// The tool, if it is one.
        name: Option<String>,
        /// Where and why.
        violation: Violation,
    },
    /// Something that is no schema.
    #[error("{param}{}: {reason}", of(.name))]
    Schema {
        /// The schema's place in the request.
        param: String,
        /// The tool, if it is one.
        name: Option<String>,
        /// What is wrong.
        reason: String,
    },
    /// A schema would take the library too deep or too long.
    #[error("{param}{}: the schema is too much to make a grammar of: {excess}", of(.name))]
    Excess {
        /// The schema's place in the request.
        param: String,
        /// The tool, if it is one.
        name: Option<String>,
        /// What it has too much of.
        excess: bounds::Excess,
    },
    /// Too much schema.
    #[error(
        "{param}: the schemas have {bytes} bytes up to here; at most {MAX_SCHEMA_BYTES} are accepted in a request"
    )]
    TooLarge {
        /// Where the limit was passed.
        param: String,
        /// Bytes up to there.
        bytes: usize,
    },
    /// The vocabulary cannot express calls.
    #[error("the model's vocabulary has no token {marker}, so it cannot call tools")]
    NoMarker {
        /// What is missing.
        marker: &'static str,
    },
    /// The vocabulary is beyond the library's limits.
    #[error(
        "grammars need a vocabulary of at most {MAX_TREE_NODES} bytes in all and an end-of-turn token; this one has {bytes} bytes and {stop_ids} end-of-turn ids"
    )]
    Vocabulary {
        /// Bytes of all tokens.
        bytes: usize,
        /// End-of-turn ids within it.
        stop_ids: usize,
    },
    /// The library gave up.
    #[error("the grammar cannot be used: {0}")]
    Library(String),
    /// There is nowhere to make one.
    #[error("a thread with {bytes} bytes of stack, which making a grammar needs, cannot be started: {error}")]
    NoThread {
        /// The stack.
        bytes: usize,
        /// Why not.
        error: std::io::Error,
    },
}

fn of(name: &Option<String>) -> String {
    name.as_ref().map(|name| format!(" (tool {name:?})")).unwrap_or_default()
}

impl GrammarError {
    /// The field of the request that is to blame, if one is.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::NotMfjs { param, .. }
            | Self::Schema { param, .. }
            | Self::Excess { param, .. }
            | Self::TooLarge { param, .. } => Some(param),
            Self::NoMarker { .. } => Some("tools"),
            Self::Vocabulary { .. } | Self::Library(_) | Self::NoThread { .. } => None,
        }
    }
}

/// What answers of one request follow.
#[derive(Clone)]
pub struct AnswerGrammar {
    rules: Arc<Rules>,
    compiled: Compiled,
    cached: bool,
}

/// A grammar at its start.
#[derive(Clone)]
struct Compiled {
    start: Arc<Mutex<Matcher>>,
    patterns_left_out: bool,
}

impl std::fmt::Debug for AnswerGrammar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerGrammar").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl AnswerGrammar {
    /// Whether it had been compiled before.
    pub fn was_cached(&self) -> bool {
        self.cached
    }

    /// Whether schemas that are not strict have lost their patterns, because the library cannot use them all.
    pub fn leaves_out_patterns(&self) -> bool {
        self.compiled.patterns_left_out
    }

    /// The state at the start of an answer. Its caches are its own, so no answer can slow down another.
    pub fn start(&self) -> Progress {
        let matcher = self.compiled.start.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
        Progress::new(Arc::clone(&self.rules), matcher)
    }
}

/// Makes grammars for one tokenizer.
pub struct GrammarCompiler {
    factory: ParserFactory,
    markers: Result<MarkerIds, &'static str>,
    think: Option<(u32, u32)>,
    stop_ids: Arc<[u32]>,
    n_vocab: usize,
    cache: SharedCache<Compiled>,
}

impl GrammarCompiler {
    /// `stop_ids` end a turn. Takes some tenths of a second for 160,000 tokens.
    pub fn new(tokenizer: &Tokenizer, stop_ids: &[u32]) -> Result<GrammarCompiler, GrammarError> {
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(tree(tokenizer, stop_ids)?));
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
            .map_err(|error| GrammarError::Library(error.to_string()))?;
        *factory.limits_mut() = LIMITS;
        factory.quiet();
        let special = |name| tokenizer.specials().id(name);
        Ok(GrammarCompiler {
            factory,
            markers: MarkerIds::of(tokenizer),
            think: special("<think>").zip(special("</think>")),
            stop_ids: stop_ids.into(),
            n_vocab: tokenizer.n_vocab() as usize,
            cache: SharedCache::new(MAX_CACHE_BYTES),
        })
    }

    /// The ids that make calls, for requests that must not have any; none if the vocabulary has none.
    pub fn marker_ids(&self) -> Vec<u32> {
        self.markers.map(|markers| markers.all().to_vec()).unwrap_or_default()
    }

    /// The grammar of what is wanted. None where nothing is: free text without tools.
    pub fn compile(&self, wanted: Wanted<'_>) -> Result<Option<AnswerGrammar>, GrammarError> {
        match (wanted.calls, wanted.content) {
            (None, ContentForm::Free) => Ok(None),
            _ => stack::large(|| self.compile_deep(wanted))?,
        }
    }

    /// As deep as its schemas.
    fn compile_deep(&self, wanted: Wanted<'_>) -> Result<Option<AnswerGrammar>, GrammarError> {
        let schemas = schema::all(wanted)?;
        let Some(text) = lark::grammar(wanted, &schemas, &self.markers)? else { return Ok(None) };
        let known_as = format!("{} {text}", strict_ones(&schemas));
        let compile = || Ok((self.compiled(wanted, schemas, &text)?, size(&text)));
        let (compiled, cached) = self.cache.get_or_make(&known_as, compile)?;
        let rules = Rules::new(wanted, self.markers.as_ref().ok(), self.think, &self.stop_ids, self.n_vocab);
        Ok(Some(AnswerGrammar { rules: Arc::new(rules), compiled, cached }))
    }

    /// The grammar of this text, or that without the patterns of schemas that are not strict.
    fn compiled(
        &self,
        wanted: Wanted<'_>,
        mut schemas: Vec<Schema>,
        text: &str,
    ) -> Result<Compiled, GrammarError> {
        let compiled = |matcher: Matcher, patterns_left_out: bool| Compiled {
            start: Arc::new(Mutex::new(matcher)),
            patterns_left_out,
        };
        let whole = match self.parse(text) {
            Ok(matcher) => return Ok(compiled(matcher, false)),
            Err(whole) => whole,
        };
        schemas.iter_mut().filter(|schema| !schema.strict).for_each(Schema::leave_out_patterns);
        let without = lark::grammar(wanted, &schemas, &self.markers)?.filter(|without| without != text);
        match without.map(|without| self.parse(&without)) {
            Some(Ok(matcher)) => Ok(compiled(matcher, true)),
            _ => Err(self.blame(schemas).unwrap_or(GrammarError::Library(whole))),
        }
    }

    /// The schema that does not compile on its own.
    fn blame(&self, schemas: Vec<Schema>) -> Option<GrammarError> {
        schemas.into_iter().find_map(|schema| {
            let reason = self.parse(&lark::json(&schema)).err()?;
            let reason = format!("the schema cannot be made a grammar: {reason}");
            Some(GrammarError::Schema { param: schema.param, name: schema.name, reason })
        })
    }

    fn parse(&self, text: &str) -> Result<Matcher, String> {
        let grammar = TopLevelGrammar::from_lark(text.to_owned());
        let mut matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(error) => Err(first_line(&error)),
            // An impossible grammar shows at its first mask.
            None => matcher.compute_mask().map(|_| matcher).map_err(|error| first_line(&error.to_string())),
        }
    }
}

/// Which schemas are strict, one letter each: what a grammar is made of when its text does not compile.
fn strict_ones(schemas: &[Schema]) -> String {
    schemas.iter().map(|schema| if schema.strict { 's' } else { '-' }).collect()
}

/// Bytes that a compiled grammar takes, estimated from above.
fn size(text: &str) -> usize {
    (256 << 10) + 64 * text.len()
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

/// All tokens that may come, special ones marked; reserved ids are not among them.
fn tree(tokenizer: &Tokenizer, stop_ids: &[u32]) -> Result<TokTrie, GrammarError> {
    let words: Vec<Vec<u8>> = (0..tokenizer.n_vocab()).map(|id| word(tokenizer, id)).collect();
    let bytes = words.iter().map(Vec::len).sum();
    let stop_ids: Vec<u32> = stop_ids.iter().copied().filter(|id| (*id as usize) < words.len()).collect();
    match stop_ids.first() {
        Some(first) if bytes < MAX_TREE_NODES => {
            let tree = TokTrie::from(&TokRxInfo::new(words.len() as u32, *first), &words);
            Ok(tree.with_eos_tokens(&stop_ids))
        }
        _ => Err(GrammarError::Vocabulary { bytes, stop_ids: stop_ids.len() }),
    }
}

fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer
        .token_bytes(id)
        .ok()
        .filter(|bytes| tokenizer.is_named(id) && bytes.len() < MAX_TOKEN_BYTES);
    let special = tokenizer.specials().get(id).is_some();
    match bytes {
        Some(bytes) if special => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
        Some(bytes) => bytes.to_vec(),
        None => Vec::new(),
    }
}
