//! The MODEL of a command line: which one it is, and the engine on it.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, value_parser};
use k2_chat::{Template, Tokenizer};
use k2_engine::{AnswerMarkers, Engine, EngineOptions};
use k2_kernels::Pool;
use k2_model::{KimiK2, Precision};
use k2_server::{Log, LogFormat, LogLevel};
use k2_weights::Checkpoint;

use crate::cache::CacheArgs;
use crate::loading_bar::LoadingBar;
use crate::repack::{Large, RepackArgs};
use crate::{embedded, tokenizer};

/// How long a program waits for its prefix store at the end.
const FLUSH: Duration = Duration::from_secs(10);

/// Which model, and the room and threads to compute it with.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// A checkpoint's folder, or a GGUF file (any of a split) [default: the small model inside this program].
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Most tokens of a conversation, prompt and answer together; never more than the model's own limit.
    #[arg(long, value_name = "TOKENS", default_value_t = EngineOptions::default().context_tokens)]
    context: usize,
    /// Threads to compute with [default: one for each processor].
    #[arg(long, value_name = "N", value_parser = value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Compute in 32-bit floats with the weights widened, in place of integer products with quantised weights.
    #[arg(long)]
    exact: bool,
    #[command(flatten)]
    repack: RepackArgs,
    #[command(flatten)]
    cache: CacheArgs,
}

/// Where the tokenizer is, if it is not with the model.
#[derive(Debug, Args)]
pub(crate) struct TokenizerArgs {
    /// Folder with tiktoken.model and tokenizer_config.json, or a GGUF file [default: the model's own].
    #[arg(long, value_name = "DIR")]
    tokenizer: Option<PathBuf>,
}

/// The turn format, if it is not the one that the checkpoint asks for.
#[derive(Debug, Args)]
pub(crate) struct TemplateArgs {
    /// Turn format: k2-instruct, k2-thinking, k2-instruct-0711, k2-instruct-0905-initial or k2.5
    /// [default: the checkpoint's; for a folder with --tokenizer DIR that of DIR].
    #[arg(long, value_name = "NAME", value_parser = Template::from_name)]
    template: Option<Template>,
}

/// An opened model.
pub(crate) struct Model {
    /// None: the one inside this program.
    path: Option<PathBuf>,
    checkpoint: Checkpoint,
    threads: Option<u16>,
    context_tokens: usize,
    precision: Precision,
    repack: RepackArgs,
    cache: CacheArgs,
}

impl ModelArgs {
    /// Opens what the command line names.
    pub(crate) fn open(&self) -> Result<Model, Box<dyn Error>> {
        let bar = LoadingBar::new();
        let checkpoint = match &self.model {
            Some(path) => Checkpoint::open(path, &mut |progress| bar.files(progress))?,
            None => embedded::checkpoint()?,
        };
        let (threads, context_tokens) = (self.threads, self.context);
        let precision = if self.exact { Precision::Exact } else { Precision::Fast };
        let (path, repack, cache) = (self.model.clone(), self.repack, self.cache.clone());
        Ok(Model { path, checkpoint, threads, context_tokens, precision, repack, cache })
    }
}

impl Model {
    /// Loads the weights and starts an engine on them.
    pub(crate) fn start(&self, options: EngineOptions) -> Result<Engine, Box<dyn Error>> {
        let pool = self.threads.map_or_else(Pool::for_this_machine, |threads| Pool::new(threads.into()));
        let bar = LoadingBar::new();
        let model = KimiK2::load(&self.checkpoint, pool, &mut |done, of| bar.layers(done, of))?;
        let mut model = KimiK2 { precision: self.precision, ..model };
        let options = EngineOptions { context_tokens: self.context_tokens, ..options };
        let options = self.cache.engine_options(self.precision, options);
        let cache_bytes = options.cache_bytes(&model.config).try_into().unwrap_or(u64::MAX);
        let repack = self.repack.apply(&mut model, cache_bytes, Large::Later, &bar)?;
        let options = EngineOptions { repack, ..options };
        Ok(Engine::start_with(model, options, self.cache.prefix_store(&self.checkpoint).as_ref())?)
    }

    /// The tokenizer of the command line or of the model.
    pub(crate) fn tokenizer(&self, args: &TokenizerArgs) -> Result<Tokenizer, Box<dyn Error>> {
        match (&args.tokenizer, self.checkpoint.gguf_vocabulary(), &self.path) {
            (Some(path), _, _) => tokenizer::open(path),
            (None, Some(vocabulary), _) => tokenizer::of_gguf(vocabulary),
            (None, None, None) => embedded::tokenizer(),
            (None, None, Some(path)) => tokenizer::open(path).map_err(|error| {
                format!("{error}\n  --tokenizer DIR names another place to read it from").into()
            }),
        }
    }

    /// The turn format of the command line or of the checkpoint.
    pub(crate) fn template(
        &self,
        args: &TemplateArgs,
        tokenizer_args: &TokenizerArgs,
    ) -> Result<Template, Box<dyn Error>> {
        if let Some(template) = args.template {
            return Ok(template);
        }
        let of_folder = tokenizer_args.tokenizer.as_deref().or(self.path.as_deref());
        match (self.checkpoint.gguf_vocabulary(), of_folder) {
            (Some(vocabulary), _) => tokenizer::template_of_gguf(vocabulary, self.checkpoint.config()),
            (None, Some(folder)) => tokenizer::template(folder),
            (None, None) => Ok(embedded::TEMPLATE),
        }
    }

    /// Ids that end a turn.
    pub(crate) fn stop_ids(&self, tokenizer: &Tokenizer) -> Arc<[u32]> {
        let configs: Vec<_> = [Some(self.checkpoint.config()), self.checkpoint.generation_config()]
            .into_iter()
            .flatten()
            .collect();
        tokenizer.stop_ids(&configs).into()
    }

    /// True for the one inside this program.
    pub(crate) fn is_embedded(&self) -> bool {
        self.path.is_none()
    }

    /// What a server calls it: the name of its folder or GGUF file.
    pub(crate) fn name(&self) -> String {
        self.path.as_deref().map_or_else(|| embedded::NAME.to_owned(), name_of)
    }
}

/// The log of commands without options for it: warnings, as text.
pub(crate) fn warnings() -> io::Result<Log> {
    Log::start(LogFormat::default(), LogLevel::WARN)
}

/// Lets the prefix store finish before the program ends, unless its disk is too slow to wait for.
pub(crate) fn flush(engine: &Engine) {
    if !engine.flush(FLUSH) {
        let seconds = FLUSH.as_secs();
        tracing::warn!(seconds, "the prefix store is not complete: its disk took longer");
    }
}

fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map_or_else(|| "kimi-k2".into(), |name| name.to_string_lossy().into_owned())
}

/// How answers of earlier turns are found in a prompt: in every turn format of Kimi alike.
pub(crate) fn answer_markers(tokenizer: &Tokenizer) -> Option<AnswerMarkers> {
    let id = |name| tokenizer.specials().id(name);
    Some(AnswerMarkers {
        assistant: id("<|im_assistant|>")?,
        begin: id("<|im_middle|>")?,
        end: id("<|im_end|>")?,
    })
}

/// Ids that a tokenizer has no name for; they are never sampled.
pub(crate) fn masked_ids(tokenizer: &Tokenizer, engine: &Engine) -> Arc<[u32]> {
    (0..engine.vocab_size() as u32).filter(|id| !tokenizer.is_named(*id)).collect()
}
